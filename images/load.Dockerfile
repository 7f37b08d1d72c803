# `sluice-load`, the load client of the demo and the Kubernetes tests, with the words it loads. Not part of an installation.
FROM scratch
COPY images/rootfs/load /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/sluice-load"]
LABEL org.opencontainers.image.title="sluice-load" org.opencontainers.image.licenses="Apache-2.0"
