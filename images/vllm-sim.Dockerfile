# docker build -f images/vllm-sim.Dockerfile -t ghcr.io/vllm-gateway/vllm-sim:0.1.0 \
#   --build-arg VERSION=$(git describe --tags --always --dirty) .
# Without Docker: go run ./images vllm-sim
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 GOWORK=off go build -trimpath -ldflags "-s -w -X github.com/vllm-gateway/vllm-gateway/internal/daemon.version=$VERSION" -o /out/vllm-sim ./cmd/vllm-sim

# The program is static and runs nothing else.
FROM scratch
COPY --from=build /out/vllm-sim /usr/local/bin/
ARG VERSION=devel
LABEL org.opencontainers.image.title="vllm-sim" \
    org.opencontainers.image.description="A vLLM server without a model, for tests without a GPU" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.source="https://github.com/vllm-gateway/vllm-gateway" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    VLLM_SIM_LISTEN=:8000
USER 65532:65532
EXPOSE 8000
ENTRYPOINT ["/usr/local/bin/vllm-sim"]
