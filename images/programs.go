package main

import (
	"os"

	"github.com/vllm-gateway/vllm-gateway/internal/image"
)

// program is one of ours, and what its image says of it. NAME.Dockerfile says
// the same; a test compares.
type program struct {
	name, about  string
	module, pkg  string // what is built
	glibc        bool   // the driver's library needs it, and so does whoever loads that
	certificates bool   // of the authorities that https:// backends are checked by
	env          []string
	ports        []int
	data         string // a folder that it writes to
}

const (
	registry = "ghcr.io/vllm-gateway/"
	tag      = "0.1.0"
	// user is no one's: not root, and without a name in the image.
	user      = 65532
	userGroup = "65532:65532"
)

// driverEnv is for what looks at GPUs, and for nvidia-smi in its container. The
// first two find a driver that is mounted by hand, as on GKE; by the others the
// NVIDIA container toolkit knows what to mount.
var driverEnv = []string{
	"PATH=/usr/local/nvidia/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib",
	"NVIDIA_VISIBLE_DEVICES=all",
	"NVIDIA_DRIVER_CAPABILITIES=utility",
}

// plainEnv is so that `kubectl exec POD -- NAME` finds the program.
const plainEnv = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var programs = []program{
	{
		name: "vllm-gateway", about: "Relays requests to vLLM servers and measures them",
		module: ".", pkg: "./cmd/vllm-gateway",
		certificates: true, env: []string{plainEnv}, ports: []int{9000},
	},
	{
		name: "gpu-exporter", about: "Reads NVIDIA GPUs and serves what it read to Prometheus",
		module: ".", pkg: "./cmd/gpu-exporter",
		glibc: true, env: driverEnv, ports: []int{9835},
	},
	{
		name: "vllm-sim", about: "A vLLM server without a model, for tests without a GPU",
		module: ".", pkg: "./cmd/vllm-sim",
		// By itself it listens on loopback, which nobody reaches in a container.
		env: []string{plainEnv, "VLLM_SIM_LISTEN=:8000"}, ports: []int{8000},
	},
	{
		name: "vllm-stack", about: "Gateway, Prometheus and dashboard in one process",
		module: "stack", pkg: ".",
		glibc: true, certificates: true, ports: []int{9000, 9090, 3000},
		// Not VLLM_STACK_DATA: in the cache folder, what is simulated and what is
		// real have folders of their own.
		env: append(driverEnv[:len(driverEnv):len(driverEnv)], "XDG_CACHE_HOME=/data"), data: "/data",
	},
}

func names() []string {
	var all []string
	for _, p := range programs {
		all = append(all, p.name)
	}
	return all
}

func (p program) ref() string        { return registry + p.name + ":" + tag }
func (p program) path() string       { return "/usr/local/bin/" + p.name }
func (p program) dockerfile() string { return "images/" + p.name + ".Dockerfile" }

// image is all but the files that are only there once the program is built.
func (p program) image(arch, version string) image.Image {
	i := image.Image{
		Name: p.ref(), Architecture: arch,
		Entrypoint: []string{p.path()}, User: userGroup, Env: p.env, Ports: p.ports,
		Labels: map[string]string{
			"org.opencontainers.image.title":       p.name,
			"org.opencontainers.image.description": p.about,
			"org.opencontainers.image.version":     version,
			"org.opencontainers.image.source":      "https://github.com/vllm-gateway/vllm-gateway",
			"org.opencontainers.image.licenses":    "Apache-2.0",
		},
	}
	if p.data != "" {
		i.Volumes = []string{p.data}
		i.Files = []image.File{{Path: p.data, Folder: true, Mode: 0o700, Owner: user}}
	}
	return i
}

// certificatesPath is where Go looks first.
const certificatesPath = "/etc/ssl/certs/ca-certificates.crt"

// certificates is this machine's bundle, or empty: that of Debian, Fedora,
// openSUSE, or Alpine and macOS.
func certificates() string {
	for _, file := range []string{certificatesPath, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"} {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			return file
		}
	}
	return ""
}
