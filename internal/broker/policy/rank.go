package policy

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// SoftSteps is how finely the soft criteria of two candidates are told apart: they are
// compared in twentieths. Within a step the policy decides, so that a wish which is met
// a trifle better does not undo it.
const SoftSteps = 20

// SoftStep gives the step of a satisfaction between 0 and 1; no number is 0.
func SoftStep(soft float64) int {
	if math.IsNaN(soft) {
		return 0
	}
	// A sum of weights that falls short of a step by rounding is on it.
	return int(math.Floor(min(max(soft, 0), 1)*SoftSteps + 1e-9))
}

// Ranked is a candidate with its marks.
type Ranked struct {
	Candidate int // index
	Step      int // of the soft criteria: see SoftStep
	Score     float64
}

// Rank orders candidates, the best first: by the step of their soft criteria, then by
// the policy's score, then by their Order in the configuration, then by place. Those
// whose score is NaN are left out. It does not depend on the order of cands, unless two
// are alike in all of this.
func Rank(j *Job, cands []Candidate, choice Choice, now time.Time) []Ranked {
	out := marks(j, cands, choice, now)
	slices.SortStableFunc(out, func(a, b Ranked) int { return compareRanked(cands, a, b) })
	return out
}

// Best gives the first of Rank; false if there is none.
func Best(j *Job, cands []Candidate, choice Choice, now time.Time) (Ranked, bool) {
	all := marks(j, cands, choice, now)
	if len(all) == 0 {
		return Ranked{}, false
	}
	return slices.MinFunc(all, func(a, b Ranked) int { return compareRanked(cands, a, b) }), true
}

func marks(j *Job, cands []Candidate, choice Choice, now time.Time) []Ranked {
	if len(cands) == 0 {
		return nil
	}
	scores := choice.Score(j, cands, now)
	out := make([]Ranked, 0, len(cands))
	for i := range cands {
		if i < len(scores) && !math.IsNaN(scores[i]) {
			out = append(out, Ranked{i, SoftStep(cands[i].Soft), scores[i]})
		}
	}
	return out
}

func compareRanked(cands []Candidate, a, b Ranked) int {
	if c := cmp.Or(cmp.Compare(b.Step, a.Step), cmp.Compare(b.Score, a.Score), cmp.Compare(cands[a.Candidate].Preference, cands[b.Candidate].Preference), cmp.Compare(cands[a.Candidate].Order, cands[b.Candidate].Order)); c != 0 {
		return c
	}
	return cands[a.Candidate].Place.Compare(cands[b.Candidate].Place)
}
