package verdict

import (
	"encoding/json"
	"io"
	"math"
)

// WriteJSON writes the verdict for machines. Its lists are there even where they are
// empty.
func WriteJSON(w io.Writer, v *Verdict) error {
	whole := *v
	if whole.Gates == nil {
		whole.Gates = []Gate{}
	}
	if whole.Stages == nil {
		whole.Stages = []Stage{}
	}
	if whole.Findings == nil {
		whole.Findings = []Finding{}
	}
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(&whole)
}

// MarshalJSON leaves an end out that is none.
func (r Range) MarshalJSON() ([]byte, error) {
	var finite struct {
		Low  float64  `json:"low"`
		High *float64 `json:"high,omitempty"`
	}
	finite.Low = r.Low
	if !math.IsInf(r.High, 0) && !math.IsNaN(r.High) {
		finite.High = &r.High
	}
	return json.Marshal(finite)
}

// Verdict is what the samples alone say of their run.
func (s *Samples) Verdict() *Verdict {
	return &Verdict{
		Script: s.Script, Smoke: s.Smoke, Start: s.Start, End: s.End,
		Gates: s.Gates, Unseen: len(s.unseen) > 0, Stages: s.Stages, Sides: s.Sides,
		Limit: s.Limit, Lateness: s.Lateness, Series: s.Series, Missing: s.Missing,
	}
}
