package gateway

import (
	"crypto/rand"
	"sync"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// ids keeps the ids of running requests apart. vLLM makes its own id of
// X-Request-Id, and two running requests with one id disturb each other there
// (vllm-project/vllm#10583, #27987).
type ids struct {
	mu      sync.Mutex
	running map[string]bool
}

// take gives the id that the client asked for if it is well formed and no
// running request has it, else a new one. The caller gives it back.
func (s *ids) take(asked string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := asked
	for !openai.WellFormedID(id) || s.running[id] {
		id = rand.Text()
	}
	if s.running == nil {
		s.running = map[string]bool{}
	}
	s.running[id] = true
	return id
}

func (s *ids) give(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, id)
}
