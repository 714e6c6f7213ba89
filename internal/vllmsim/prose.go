package vllmsim

import (
	"math/rand/v2"
	"strings"
)

var words = strings.Fields(`
a about above across after again air all along also an and another answer any are around as ask at away
back be because been before began begin below between big book both boy but by call came can car carry
change children city close come could country cut day did different do does down each earth eat end enough
even every example eye face family far father feet few find first follow food for form found four from get
girl give go good got great group grow had hand hard has have he head hear help her here high him his home
house how idea if important in into is it its just keep kind know land language large last later learn leave
left letter life light like line list little live long look made make man many may me mean men might miss more
most mother mountain move much must my name near need never new next night no not now number of off often old
on once one only open or other our out over own page paper part people picture place plant play point put
question quick quite read really right river run said same saw say school sea second see seem sentence set
she should show side small so some something sometimes song soon sound spell start state still stop story
study such take talk tell than that the their them then there these they thing think this those thought three
through time to together too took tree try turn two under until up us use very walk want was watch water way
we well went were what when where which while white who why will with without word work world would write
year you young your`)

// prose makes so many tokens of sentences without meaning. When it thinks, the
// first third of them is reasoning.
func prose(rng *rand.Rand, n int, think bool) []token {
	var tokens []token
	for left := 0; len(tokens) < n; left-- {
		word := words[rng.IntN(len(words))]
		if left == 0 {
			left = 6 + rng.IntN(9)
			word = strings.ToUpper(word[:1]) + word[1:]
		}
		if len(tokens) > 0 {
			word = " " + word
		}
		if left == 1 {
			word += "."
		}
		tokens = append(tokens, pieces(word, content)...)
	}
	tokens = tokens[:n]
	if think {
		for i := range (n + 2) / 3 {
			tokens[i].part = reasoning
		}
	}
	return tokens
}
