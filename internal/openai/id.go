package openai

// WellFormedID: what ids of requests and responses are made of. Nothing in it
// can mean anything to a header, a path or a log.
func WellFormedID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// learnID keeps a raw JSON value where it is a well-formed id and none is known.
func learnID(id *string, raw []byte) {
	if s := text(raw); *id == "" && WellFormedID(s) {
		*id = s
	}
}
