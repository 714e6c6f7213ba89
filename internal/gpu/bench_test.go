package gpu

import (
	"context"
	"net/http/httptest"
	"testing"
)

// go test ./internal/gpu -run - -bench . -benchmem: what 16 GPUs cost. The
// worker's part is its own process's, and not in it.

func BenchmarkCollection(b *testing.B) {
	r := newRig(b, "nvml")
	r.m.write(gpus(16)...)
	defer r.source.Close()
	b.ReportAllocs()
	for b.Loop() {
		c, err := r.source.Collect(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		r.take(c, nil)
	}
}

func BenchmarkScrape(b *testing.B) {
	r := newRig(b, "nvml")
	r.m.write(gpus(16)...)
	r.collectOnce()
	r.source.Close()
	b.ReportAllocs()
	for b.Loop() {
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	}
}
