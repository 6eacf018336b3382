# The image of a release: the command, certificates of authorities, and nothing else.
# release/files and release/build make the files, as docs/install.md says. The user is not
# root, and the file system may be read-only: give --store a volume, or use --no-store.
FROM scratch
ARG TARGETPLATFORM=linux/amd64
COPY build/package/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE /LICENSE
COPY --chmod=0755 ${TARGETPLATFORM}/wasm-jobs /usr/bin/wasm-jobs
USER 65532:65532
WORKDIR /work
ENV PATH=/usr/bin
ENTRYPOINT ["/usr/bin/wasm-jobs"]
