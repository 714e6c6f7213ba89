# docker build -f images/gpu-exporter.Dockerfile -t ghcr.io/vllm-gateway/gpu-exporter:0.1.0 \
#   --build-arg VERSION=$(git describe --tags --always --dirty) .
# Without Docker: go run ./images gpu-exporter
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 GOWORK=off go build -trimpath -ldflags "-s -w -X github.com/vllm-gateway/vllm-gateway/internal/daemon.version=$VERSION" -o /out/gpu-exporter ./cmd/gpu-exporter

# Debian, since the driver's library and nvidia-smi, which NVIDIA's container
# toolkit mounts, need glibc; and since the toolkit looks for /etc/debian_version
# to know where libraries go, and renews /etc/ld.so.cache only where there is one.
FROM debian:bookworm-slim
COPY --from=build /out/gpu-exporter /usr/local/bin/
ARG VERSION=devel
LABEL org.opencontainers.image.title="gpu-exporter" \
    org.opencontainers.image.description="Reads NVIDIA GPUs and serves what it read to Prometheus" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.source="https://github.com/vllm-gateway/vllm-gateway" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/usr/local/nvidia/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=utility
USER 65532:65532
EXPOSE 9835
ENTRYPOINT ["/usr/local/bin/gpu-exporter"]
