// Images writes the images that "make test-k8s" needs and that are not ours: a fake
// nvidia-smi always, and with -standins, for a cluster without a way out, Prometheus,
// k6, the k6-operator and a stand-in for Grafana under the names of the manifests.
//
// Prometheus is the real one, built from its own source without the parts that
// other clouds need, with Debian's busybox beside it, as in its own image; so are k6
// and its operator, with this machine's curl for the pod that starts the others.
// Grafana is not: see ../grafana. Never load them into a cluster that people use.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/image"
)

var (
	folder   = flag.String("o", "../bin/images/test", "the `folder` that the tarballs are written to")
	standins = flag.Bool("standins", false, "Prometheus and Grafana, too")
	prom     = flag.String("prometheus", "../bin/prometheus", "the `program`")
	k6       = flag.String("k6", "../bin/k6", "the `program`")
	operator = flag.String("k6-operator", "../bin/k6-operator", "the `program`")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "test images:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := os.RemoveAll(*folder); err != nil {
		return err
	}
	if err := os.MkdirAll(*folder, 0o755); err != nil {
		return err
	}
	smi, err := built("nvidia-smi")
	if err != nil {
		return err
	}
	images := []image.Image{{
		Name: "vllm-gateway.test/nvidia-smi:1", Entrypoint: []string{"/nvidia-smi"},
		Files: []image.File{{Path: "/nvidia-smi", From: smi}},
	}}
	if *standins {
		busybox, err := exec.LookPath("busybox")
		if err != nil {
			return fmt.Errorf("%w: Prometheus's image has a busybox; install busybox-static", err)
		}
		grafana, err := built("grafana")
		if err != nil {
			return err
		}
		load, err := linked("/usr/bin/k6", *k6)
		if err != nil {
			return err
		}
		curl, err := exec.LookPath("curl")
		if err != nil {
			return fmt.Errorf("%w: the k6-operator starts its pods with it; install curl", err)
		}
		starter, err := linked("/usr/bin/curl", curl)
		if err != nil {
			return err
		}
		shell := []image.File{{Path: "/bin/busybox", From: busybox}}
		for _, command := range []string{"sh", "cat", "dirname", "grep", "mkdir"} {
			shell = append(shell, image.File{Path: "/bin/" + command, Link: "busybox"})
		}
		images = append(images, image.Image{
			Name: "docker.io/grafana/k6:1.8.1", Entrypoint: []string{"/usr/bin/k6"}, User: "12345", Env: []string{"PATH=/usr/bin:/bin"},
			Files: slices.Concat(load, shell, []image.File{{Path: "/tmp", Folder: true, Mode: 0o777}}),
		}, image.Image{
			Name: "ghcr.io/grafana/k6-operator:starter-v1.6.0", Entrypoint: []string{"/usr/bin/curl"}, User: "65532", Env: []string{"PATH=/usr/bin:/bin"},
			Files: slices.Concat(starter, shell),
		}, image.Image{
			Name: "ghcr.io/grafana/k6-operator:controller-v0.0.19", Entrypoint: []string{"/manager"}, User: "65532",
			Files: []image.File{{Path: "/manager", From: *operator}},
		}, image.Image{
			Name: "docker.io/prom/prometheus:v3.16.0", Entrypoint: []string{"/bin/prometheus"}, User: "65534", Env: []string{"PATH=/bin"},
			Files: []image.File{{Path: "/bin/prometheus", From: *prom}, {Path: "/bin/busybox", From: busybox}, {Path: "/bin/wget", Link: "busybox"}},
		}, image.Image{
			Name: "docker.io/grafana/grafana:13.2.3", Entrypoint: []string{"/run.sh"}, User: "472",
			Files: []image.File{{Path: "/run.sh", From: grafana}},
		})
	}
	for _, i := range images {
		if err := write(i); err != nil {
			return err
		}
	}
	return nil
}

// built is a program beside this one, static.
func built(name string) (string, error) {
	path := filepath.Join(*folder, name)
	build := exec.Command("go", "build", "-trimpath", "-o", path, "./testdata/"+name)
	build.Env = append(build.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	build.Stderr = os.Stderr
	return path, build.Run()
}

// linked is a program by its name in the image, with the libraries of this machine
// that it is linked with.
func linked(name, program string) ([]image.File, error) {
	files := []image.File{{Path: name, From: program}}
	out, err := exec.Command("ldd", program).CombinedOutput()
	if static := strings.Contains(string(out), "not a dynamic executable"); err != nil && !static {
		return nil, fmt.Errorf("ldd %s: %w: %s", program, err, out)
	}
	for _, library := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
		files = append(files, image.File{Path: library[1], From: library[1]})
	}
	return files, nil
}

func write(i image.Image) error {
	f, err := os.Create(filepath.Join(*folder, filepath.Base(i.Entrypoint[0])+".tar"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := image.Write(f, i); err != nil {
		return err
	}
	return f.Close()
}
