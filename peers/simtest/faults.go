package simtest

import (
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/peers/handover"
)

// before breaks a rule in front of the step: what the step would look at is changed so
// that the rule has nothing to say.
func (f Faults) before(w *World, g *gateway, j *handover.Job, in handover.Input) (*handover.Job, handover.Input) {
	edit := func() *handover.Job {
		c := *j
		if j.Taken != nil {
			t := *j.Taken
			c.Taken = &t
		}
		if j.Gave != nil {
			p := *j.Gave
			c.Gave = &p
		}
		return &c
	}
	if j == nil {
		return j, in
	}
	if f.TakerIgnoresDeadline && j.Taken != nil && !j.Taken.Lapsed {
		j = edit()
		j.Taken.RecallBy = g.clock().Add(j.Taken.Terms.Lease)
	}
	if f.GiverIgnoresDeadline && j.Phase == handover.Given && w.chance(0.05) {
		j = edit()
		j.Gave.RecallBy = g.clock().Add(-time.Hour)
	}
	r, ok := in.(handover.Received)
	if !ok {
		if _, ok := in.(handover.Forward); ok && f.PathNotChecked {
			j = unpath(edit())
		}
		if _, ok := in.(handover.Forward); ok && f.HopsNotCounted && j.Taken != nil {
			j = edit()
			j.Taken.Hops = maxHops
		}
		return j, in
	}
	switch m := r.Message.(type) {
	case handover.Route:
		if f.TokenNotCompared && j.Taken != nil && (j.Phase == handover.Released || j.Phase == handover.Over) {
			return nil, in // as if nothing were known
		}
		if f.RefusalForgotten && j.Taken != nil && j.Taken.Refused {
			return nil, in
		}
		if f.RecallForgotten && j.Taken != nil && len(j.Taken.Path) == 0 {
			return nil, in
		}
	case handover.Report:
		if f.LateEndHeeded && m.Status == handover.IsEnded && j.Taken == nil && j.Phase != handover.Over && j.Phase != handover.Waiting {
			// As if no place had been made since.
			j = edit()
			j.Phase, j.Gave = handover.Waiting, &handover.Gave{To: r.From, Token: j.Token(), Terms: r.Terms, Over: true}
			m.Token = j.Token()
			r.Message = m
			return j, r
		}
		if f.ResultTwice && j.Gave != nil && j.Gave.To == r.From && m.Status.Final() {
			m.Token = j.Gave.Token
			r.Message = m
			return j, r
		}
	}
	return j, in
}

// unpath hides the domains in the middle of the path, so that nothing in it is recognised.
func unpath(j *handover.Job) *handover.Job {
	if j.Taken != nil {
		j.Taken.Path = disguise(j.Taken.Path, 1, len(j.Taken.Path))
	}
	return j
}

// sent breaks a rule behind the step.
func (f Faults) sent(m handover.Message) handover.Message {
	if r, ok := m.(handover.Route); ok && f.PathNotChecked {
		r.Path = disguise(r.Path, 1, len(r.Path)-1)
		return r
	}
	return m
}

func disguise(path []string, from, to int) []string {
	out := slices.Clone(path)
	for i := from; i < to; i++ {
		if !strings.HasSuffix(out[i], "'") {
			out[i] += "'"
		}
	}
	return out
}
