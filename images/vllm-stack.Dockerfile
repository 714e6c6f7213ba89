# docker build -f images/vllm-stack.Dockerfile -t ghcr.io/vllm-gateway/vllm-stack:0.1.0 \
#   --build-arg VERSION=$(git describe --tags --always --dirty) .
# Without Docker: go run ./images vllm-stack
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY stack/go.mod stack/go.sum ./stack/
RUN cd stack && go mod download
COPY . .
ARG VERSION=devel
RUN cd stack && CGO_ENABLED=0 GOWORK=off go build -trimpath -ldflags "-s -w -X github.com/vllm-gateway/vllm-gateway/internal/daemon.version=$VERSION" -o /out/vllm-stack . \
    && install -d -m 700 /out/data

# Debian, since the driver's library and nvidia-smi, which NVIDIA's container
# toolkit mounts, need glibc; and since the toolkit looks for /etc/debian_version
# to know where libraries go, and renews /etc/ld.so.cache only where there is one.
FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/vllm-stack /usr/local/bin/
ARG VERSION=devel
LABEL org.opencontainers.image.title="vllm-stack" \
    org.opencontainers.image.description="Gateway, Prometheus and dashboard in one process" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.source="https://github.com/vllm-gateway/vllm-gateway" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/usr/local/nvidia/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=utility \
    XDG_CACHE_HOME=/data
VOLUME /data
USER 65532:65532
EXPOSE 9000 9090 3000
ENTRYPOINT ["/usr/local/bin/vllm-stack"]
