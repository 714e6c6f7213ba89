// Images writes the images that "make test-k8s" needs and that are not ours: a fake
// nvidia-smi always, and with -standins, for a cluster without a way out, Prometheus
// and a stand-in for Grafana under the names of the manifests.
//
// Prometheus is the real one, built from its own source without the parts that
// other clouds need, with Debian's busybox beside it, as in its own image. Grafana is
// not: see ../grafana. Never load them into a cluster that people use.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vllm-gateway/vllm-gateway/internal/image"
)

var (
	folder   = flag.String("o", "../bin/images/test", "the `folder` that the tarballs are written to")
	standins = flag.Bool("standins", false, "Prometheus and Grafana, too")
	prom     = flag.String("prometheus", "../bin/prometheus", "the `program`")
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
		images = append(images, image.Image{
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
