# The servers and clients of the end-to-end tests (tests/workload), on the base that Sheave has.
ARG BASE
FROM ${BASE}
USER 65532:65532
COPY --chmod=0755 target/release/examples/workload /workload
ENTRYPOINT ["/workload"]
