# The image of Sheave: one binary, no shell, not root; a read-only root file system is enough.
#   docker build .                     compiles in a Rust image, on distroless
#   make image                         takes target/release/sheave as it is, on a base made from this machine: offline
ARG RUST=docker.io/library/rust:1.95-bookworm
# What it needs of a base: glibc with libgcc_s, CA certificates, a user 65532.
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="sheave" \
      org.opencontainers.image.description="L4 load balancer for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/sheave"]
CMD ["run", "--config", "/etc/sheave/config.yaml"]

# Before the stage that compiles, so that `--target prebuilt` needs no Rust image.
FROM runtime AS prebuilt
ARG BINARY=target/release/sheave
COPY --chmod=0755 ${BINARY} /usr/local/bin/sheave

FROM ${RUST} AS compile
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin sheave

FROM runtime
COPY --from=compile /src/target/release/sheave /usr/local/bin/sheave
