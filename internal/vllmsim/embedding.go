package vllmsim

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// embeddingSize is the length of a vector for which no dimensions are asked.
const embeddingSize = 256

type embeddingRequest struct {
	Model      *string `json:"model"`
	Input      prompts `json:"input"`
	Dimensions *int    `json:"dimensions"`
	Format     string  `json:"encoding_format"`
}

var embeddingShape = model(
	may("model", optional(text)),
	need("input", promptShape),
	may("dimensions", optional(integer)),
	may("encoding_format", oneOf("float", "base64")),
)

type embeddingResponse struct {
	ID      string      `json:"id"`
	Object  string      `json:"object"`
	Created int64       `json:"created"`
	Model   string      `json:"model"`
	Data    []embedding `json:"data"`
	Usage   *usage      `json:"usage"`
}

type embedding struct {
	Index     int    `json:"index"`
	Object    string `json:"object"`
	Embedding any    `json:"embedding"` // numbers, or base64 of float32s
}

// embeddings runs each input through the engine as a prompt with one token to
// say, which costs what a pooling model's pass over it does.
func (s *Server) embeddings(w http.ResponseWriter, r *http.Request, t trouble) {
	var q embeddingRequest
	if e := read(r, embeddingShape, &q); e != nil {
		e.WriteTo(w)
		return
	}
	model, e := s.known(q.Model)
	if e != nil { // pooling has words of its own for it
		openai.NewError(http.StatusNotFound, fmt.Sprintf("The model `%s` does not exist.", *q.Model)).WriteTo(w)
		return
	}
	if len(q.Input) == 0 {
		bad("", nil, "You must pass at least one prompt").WriteTo(w)
		return
	}
	size := embeddingSize
	if q.Dimensions != nil {
		size = *q.Dimensions
	}
	if size < 1 {
		bad("dimensions", size, "dimensions must be at least 1, got %d.", size).WriteTo(w)
		return
	}
	j := newJob(1)
	j.pooling = true
	answer := embeddingResponse{
		ID: "embd-" + s.requestID(r, s.requests.Add(1)), Object: "list", Created: time.Now().Unix(), Model: model,
	}
	total := 0
	for i, input := range q.Input {
		if _, e := s.room(len(input), limit{}, &sampling{}); e != nil {
			e.WriteTo(w)
			return
		}
		total += len(input)
		j.add(input, script{tokens: []token{{id: eos, part: markup}}, finish: "stop"})
		answer.Data = append(answer.Data, embedding{i, "embedding", form(vector(input, size), q.Format)})
	}
	if s.collect(w, r, j, t) {
		answer.Usage = newUsage(total, 0)
		answer.Usage.PromptTokensDetails, answer.Usage.CompletionTokensDetails = null, null
		writeJSON(w, answer)
	}
}

// vector is a unit vector that depends on the tokens.
func vector(tokens []int, size int) []float32 {
	rng := dice(mixTokens(0, tokens))
	v := make([]float32, size)
	var square float64
	for i := range v {
		x := rng.NormFloat64()
		v[i] = float32(x)
		square += x * x
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(square))
	}
	return v
}

func form(v []float32, format string) any {
	if format != "base64" {
		return v
	}
	var raw []byte
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(raw)
}
