package vllmsim

import (
	"net/http"
	"time"
)

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	t := s.faults.next(slowHealth, unhealthy)
	if f, ok := t[slowHealth]; ok && !s.pause(r, f.Delay) {
		return
	}
	if _, ok := t[unhealthy]; ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// pause waits; false says that the client or the server is gone.
func (s *Server) pause(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	case <-s.engine.quit:
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) version(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, map[string]string{"version": Version})
}

func (s *Server) serverLoad(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, map[string]int64{"server_load": s.load.Load()})
}

type modelList struct {
	Object string      `json:"object"`
	Data   []modelCard `json:"data"`
}

type modelCard struct {
	ID          string            `json:"id"`
	Object      string            `json:"object"`
	Created     int64             `json:"created"`
	OwnedBy     string            `json:"owned_by"`
	Root        string            `json:"root"`
	Parent      *string           `json:"parent"`
	MaxModelLen int               `json:"max_model_len"`
	Permission  []modelPermission `json:"permission"`
}

type modelPermission struct {
	ID                 string  `json:"id"`
	Object             string  `json:"object"`
	Created            int64   `json:"created"`
	AllowCreateEngine  bool    `json:"allow_create_engine"`
	AllowSampling      bool    `json:"allow_sampling"`
	AllowLogprobs      bool    `json:"allow_logprobs"`
	AllowSearchIndices bool    `json:"allow_search_indices"`
	AllowView          bool    `json:"allow_view"`
	AllowFineTuning    bool    `json:"allow_fine_tuning"`
	Organization       string  `json:"organization"`
	Group              *string `json:"group"`
	IsBlocking         bool    `json:"is_blocking"`
}

func (s *Server) models(w http.ResponseWriter, r *http.Request) {
	now := time.Now().Unix()
	list := modelList{Object: "list", Data: []modelCard{}}
	for i, name := range s.cfg.Models {
		list.Data = append(list.Data, modelCard{
			ID: name, Object: "model", Created: now, OwnedBy: "vllm",
			Root: s.cfg.Models[0], MaxModelLen: s.cfg.MaxModelLen,
			Permission: []modelPermission{{
				ID: "modelperm-" + s.uuid(mixString(uint64(i), name)), Object: "model_permission", Created: now,
				AllowSampling: true, AllowLogprobs: true, AllowView: true, Organization: "*",
			}},
		})
	}
	writeJSON(w, list)
}
