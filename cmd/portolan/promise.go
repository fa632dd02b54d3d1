package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/offering"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/moments"
	"github.com/portolan-project/portolan/jsdl"
)

// promise is what the command line wants promised of a job.
type promise struct {
	finishBy, startBy, reserve string
}

func (p *promise) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.finishBy, "finish-by", "", "have it promised that the job has ended by this time")
	cmd.Flags().StringVar(&p.startBy, "start-by", "", "have it promised that the job starts by this time")
	cmd.Flags().StringVar(&p.reserve, "reserve", "", "have the job's resources reserved FROM/UNTIL")
	for _, f := range []string{"finish-by", "start-by", "reserve"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(f, cobra.NoFileCompletions))
	}
	cmd.MarkFlagsMutuallyExclusive("finish-by", "start-by", "reserve")
}

// promiseHelp tells of the flags.
const promiseHelp = `With --finish-by or --start-by TIME, or --reserve FROM/UNTIL, each job is promised: an offer is
made for it by the gateway's templates, and the id of the agreement is told before that of the
activity; 'portolan agreement show' tells how the promise stands. The job needs a WallTimeLimit,
unless its resources are reserved. A promise that can't be kept is refused, with the earliest time
that can. TIME is one like ` + moments.Forms + `:
times without a zone are local, and a day is its end.`

// wish gives what is wanted; nil is no promise at all.
func (p *promise) wish(site string, now time.Time) (w *offering.Wish, err error) {
	w = &offering.Wish{Site: site}
	flag := ""
	switch {
	case p.finishBy != "":
		flag, w.Kind = "--finish-by", terms.FinishBy
		w.By, err = moments.By(p.finishBy, now, time.Local)
	case p.startBy != "":
		flag, w.Kind = "--start-by", terms.StartBy
		w.By, err = moments.By(p.startBy, now, time.Local)
	case p.reserve != "":
		flag, w.Kind = "--reserve", terms.AdvanceReservation
		w.Window.Start, w.Window.End, err = moments.Period(p.reserve, now, time.Local)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, usagef("%s: %s", flag, sentence(err))
	}
	return w, nil
}

// create makes an activity of a document.
type create func(ctx context.Context, document []byte, file string) (activity, error)

// promised gives the way to make activities: by BES where there is no wish, and else by
// an agreement for each, whose id is told as soon as there is one.
func (c *client) promised(w *offering.Wish, tell func(id string)) (create, error) {
	if w == nil {
		return c.create, nil
	}
	s, err := c.agreements()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, document []byte, file string) (activity, error) {
		// What was promised before has changed the limits.
		list, err := s.service.Templates(ctx)
		if err != nil {
			return activity{}, s.refused(err)
		}
		wish := *w
		wish.Job = document
		if job, _ := jsdl.Parse(document, jsdl.Options{Lenient: true}); job != nil {
			wish.Name = job.Name()
		}
		m, err := offering.Make(list, wish)
		if err != nil {
			return activity{}, &exitError{code: exitRefused, err: fmt.Errorf("%s: %s", file, sentence(err)), cause: err}
		}
		if m.Unchecked != "" {
			c.app.complain("the offer is sent unchecked: " + m.Unchecked)
		}
		key, err := s.service.Create(ctx, &agreement.CreateRequest{Offer: *m.Offer})
		if err != nil {
			return activity{}, prefixed(file+" was refused: ", s.refused(err))
		}
		id := s.named(key)
		tell(id)
		return s.activity(ctx, key, id)
	}, nil
}

// prefixed says first what an error is about.
func prefixed(what string, err error) error {
	e, ok := errors.AsType[*exitError](err)
	if !ok || e.err == nil || e.code != exitRefused {
		return err
	}
	return &exitError{code: e.code, err: fmt.Errorf("%s%w", what, e.err), cause: e.cause}
}

// activity waits until an agreement names its activity, which is some moments after it
// was accepted.
func (s *agreementClient) activity(ctx context.Context, key, id string) (activity, error) {
	unknown := func(why string) error {
		return refusedf("the agreement %s was accepted, but its activity %s: 'portolan agreement show %s' tells how it stands", id, why, id)
	}
	pause, began := shortPause, time.Now()
	for {
		p, err := s.service.Agreement(ctx, key)
		switch {
		case ctx.Err() != nil:
			return activity{}, refusal(ctx.Err())
		case err != nil && !passing(err):
			return activity{}, unknown("can't be asked for (" + sentence(s.refused(err)) + ")")
		case err == nil:
			for _, x := range offering.Activities(p) {
				if act, ok := s.activityOf(x); ok {
					return act, nil
				}
			}
			if p.State.Final() {
				return activity{}, unknown("was never made: it is " + string(p.State))
			}
		}
		if time.Since(began) > patience {
			return activity{}, unknown("is not known yet")
		}
		if err := rest(ctx, &pause); err != nil {
			return activity{}, refusal(err)
		}
	}
}
