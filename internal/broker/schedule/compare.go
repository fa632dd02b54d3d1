package schedule

import (
	"iter"

	"github.com/portolan-project/portolan/resourcemodel"
)

// Comparison is how the shadow policies would have decided what was decided.
type Comparison struct {
	Decisions int `json:"decisions"` // those that have a shadow
	Same      int `json:"same"`      // the same place
	Elsewhere int `json:"elsewhere"` // another one
	Waited    int `json:"waited"`    // none: another job would have gone first
	// Sites tells how many jobs each site got, and how many it would have got.
	Sites map[string]Tally `json:"sites,omitempty"`
	// Examples are the first decisions that differ, at most MaxExamples.
	Examples []Example `json:"examples,omitempty"`
}

// Tally counts the jobs of a site.
type Tally struct {
	InForce int `json:"inForce"`
	Shadow  int `json:"shadow"`
}

// Example is one decision that differs.
type Example struct {
	Job     string               `json:"job"`
	InForce *resourcemodel.Place `json:"inForce"` // nil: it waited on
	Shadow  *resourcemodel.Place `json:"shadow"`  // nil: it would have waited on
}

// MaxExamples bounds a Comparison's.
const MaxExamples = 20

// Compare compares what is in force with the shadow over decisions. Those without a
// shadow are passed over.
func Compare(decisions iter.Seq[Decision]) Comparison {
	c := Comparison{Sites: map[string]Tally{}}
	for d := range decisions {
		if d.Shadow != nil {
			c.add(d.Job, &d.Place, d.Shadow.Place)
		}
	}
	return c
}

func (c *Comparison) add(job string, inForce, shadow *resourcemodel.Place) {
	c.Decisions++
	if inForce != nil {
		t := c.Sites[inForce.Key.String()]
		t.InForce++
		c.Sites[inForce.Key.String()] = t
	}
	if shadow != nil {
		t := c.Sites[shadow.Key.String()]
		t.Shadow++
		c.Sites[shadow.Key.String()] = t
	}
	switch {
	case inForce != nil && shadow != nil && *inForce == *shadow:
		c.Same++
		return
	case shadow == nil:
		c.Waited++
	default:
		c.Elsewhere++
	}
	if len(c.Examples) < MaxExamples {
		c.Examples = append(c.Examples, Example{job, inForce, shadow})
	}
}
