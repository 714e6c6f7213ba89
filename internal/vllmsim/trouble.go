package vllmsim

import (
	"io"
	"net/http"
	"sync"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// faults are those in force, each with the number of requests it has seen.
type faults struct {
	mu   sync.Mutex
	list []Fault
	seen []int
}

func (f *faults) set(list []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list, f.seen = list, make([]int, len(list))
}

// get is never nil, so that it prints as a list.
func (f *faults) get() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Fault{}, f.list...)
}

// trouble is what is to go wrong with one request, by kind.
type trouble map[string]Fault

// next gives a request its trouble among some kinds; every fault of these kinds
// counts the request.
func (f *faults) next(kinds ...string) trouble {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := trouble{}
	for i, fault := range f.list {
		for _, kind := range kinds {
			if fault.Kind != kind {
				continue
			}
			f.seen[i]++
			if _, has := t[kind]; !has && fault.hits(f.seen[i]) {
				t[kind] = fault
			}
		}
	}
	return t
}

// faultAdmin is GET, PUT and DELETE /sim/faults.
func (s *Server) faultAdmin(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			return // the client is gone, or sends nonsense without end
		}
		list, err := decodeFaults(body)
		if err != nil {
			openai.NewError(http.StatusBadRequest, err.Error()).WriteTo(w)
			return
		}
		for _, f := range list {
			if f.Kind == crash {
				s.crash(w)
				return
			}
		}
		s.faults.set(list)
	case http.MethodDelete:
		s.faults.set(nil)
	}
	writeJSON(w, s.faults.get())
}

func (s *Server) crash(w http.ResponseWriter) {
	if s.cfg.OnCrash == nil {
		openai.NewError(http.StatusNotImplemented, "fault crash: this server cannot end its process").WriteTo(w)
		return
	}
	s.cfg.OnCrash()
	panic(http.ErrAbortHandler)
}
