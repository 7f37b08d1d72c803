# The store: `sluice-store` and the shared libraries it links (libc, libm, libgcc_s, the loader), nothing else: no shell, no package
# manager. `images/build` prepares rootfs/store and makes the same image without a daemon;
# with one: images/build --rootfs && docker build -f images/store.Dockerfile .
FROM scratch
COPY images/rootfs/store /
COPY --chown=65532:65532 images/rootfs/store-data /data
# The uid every distribution leaves free; pods that mount /data give it fsGroup 65532.
USER 65532:65532
EXPOSE 6379 7379
ENTRYPOINT ["/usr/local/bin/sluice-store"]
LABEL org.opencontainers.image.title="sluice-store" org.opencontainers.image.licenses="Apache-2.0"
