# The operator: one static binary. `images/build` prepares rootfs/operator and makes the same image without a daemon;
# with one: images/build --rootfs && docker build -f images/operator.Dockerfile .
FROM scratch
COPY images/rootfs/operator /
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/sluice-operator"]
LABEL org.opencontainers.image.title="sluice-operator" org.opencontainers.image.licenses="Apache-2.0"
