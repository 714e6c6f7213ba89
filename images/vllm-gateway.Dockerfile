# docker build -f images/vllm-gateway.Dockerfile -t ghcr.io/vllm-gateway/vllm-gateway:0.1.0 \
#   --build-arg VERSION=$(git describe --tags --always --dirty) .
# Without Docker: go run ./images vllm-gateway
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 GOWORK=off go build -trimpath -ldflags "-s -w -X github.com/vllm-gateway/vllm-gateway/internal/daemon.version=$VERSION" -o /out/vllm-gateway ./cmd/vllm-gateway

# The program is static and runs nothing else.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/vllm-gateway /usr/local/bin/
ARG VERSION=devel
LABEL org.opencontainers.image.title="vllm-gateway" \
    org.opencontainers.image.description="Relays requests to vLLM servers and measures them" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.source="https://github.com/vllm-gateway/vllm-gateway" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 65532:65532
EXPOSE 9000
ENTRYPOINT ["/usr/local/bin/vllm-gateway"]
