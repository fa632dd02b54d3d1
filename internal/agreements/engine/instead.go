package engine

import (
	"context"
	"errors"

	"github.com/portolan-project/portolan/agreement"
)

// QuoteInstead is Quote for an agreement that would replace one of the owner's: what that
// holds counts as free. The errors are those of Propose with Replaces.
func (e *Engine) QuoteInstead(ctx context.Context, owner, replaces, vo string, plans []Plan) (Plan, int, error) {
	const op = "engine.Quote"
	var plan *Plan
	index := 0
	undone := errors.New("not to be written")
	err := e.do(ctx, op, func(b *batch) error {
		checked, err := b.e.opts.plans(op, "", plans, b.now)
		if err != nil {
			return err
		}
		if err := b.replace(op, &Proposal{Owner: owner, Replaces: replaces}); err != nil {
			return err
		}
		d := &draft{}
		if err := b.accept(op, d, &Record{VO: vo, State: agreement.Observed}, checked); err != nil {
			return err
		}
		plan, index = d.rec.Plan, d.rec.Alternative
		return undone
	})
	if !errors.Is(err, undone) {
		return Plan{}, 0, err
	}
	if plan == nil {
		return Plan{}, 0, nil
	}
	return *plan, index, nil
}
