package service

import (
	"context"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/guarantee"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
)

// Usage gives what was settled of the caller's agreements, and of everybody's where the caller
// oversees them. At most q.Most agreements are looked at: a page may have fewer, or none, and still
// not be the last.
func (s *Service) Usage(ctx context.Context, q ledger.Query) (*ledger.Page, error) {
	const op = "service.Usage"
	who, err := s.b.Permit(ctx, op, broker.Submit)
	if err != nil {
		return nil, err
	}
	if err := q.Check(); err != nil {
		return nil, err
	}
	var records []engine.Record
	if _, denied := s.b.Permit(ctx, op, broker.Oversee); denied == nil {
		records, err = s.e.All(ctx, q.Before, q.Most)
	} else {
		records, err = s.e.List(ctx, who.Name, q.Before, q.Most)
	}
	if err != nil {
		return nil, err
	}
	p := &ledger.Page{Agreements: []ledger.Settled{}}
	for i := range records {
		r := &records[i]
		switch {
		case !r.Final() || q.VO != "" && r.VO != q.VO:
		case !q.From.IsZero() && r.Ended.Before(q.From) || !q.Until.IsZero() && !r.Ended.Before(q.Until):
		default:
			x, err := settled(r)
			if err != nil {
				return nil, err
			}
			if x != nil {
				p.Agreements = append(p.Agreements, *x)
			}
		}
	}
	if len(records) == q.Most {
		p.Next = records[len(records)-1].ID
	}
	return p, nil
}

// statuses are those of usage records for how agreements and their jobs ended.
var (
	statuses  = map[agreement.State]string{agreement.Complete: "Completed", agreement.Terminated: "Aborted"}
	statusOf  = map[guarantee.Outcome]string{guarantee.Finished: "Completed", guarantee.Failed: "Failed", guarantee.Cancelled: "Aborted"}
	unsettled = "Aborted" // of a job whose end was not heard of
)

// settled gives the account of an agreement that has ended; nil while it is not closed, and of one
// that never was binding.
func settled(r *engine.Record) (*ledger.Settled, error) {
	n, err := noteOf(r)
	if err != nil || !n.Over {
		return nil, err
	}
	placed, err := terms.Placements(r.Plan)
	if err != nil {
		return nil, err
	}
	status, ok := statuses[r.State]
	if !ok {
		return nil, nil // it was rejected, so that nothing is due
	}
	x := &ledger.Settled{
		Agreement: r.ID, Name: clean(r.Name, 255), VO: clean(r.VO, 255), User: clean(r.Owner, 255), Status: status, Ended: r.Ended,
		Jobs: []ledger.SettledJob{}, Amounts: []ledger.SettledAmount{},
	}
	for i := range n.Services {
		v := &n.Services[i]
		if v.Job == "" {
			continue
		}
		j := ledger.SettledJob{Job: v.Job, Status: unsettled, Site: v.Site, Begun: v.Begun, Ended: v.Ended, Wall: v.Used}
		if s, ok := statusOf[v.Outcome]; ok {
			j.Status = s
		}
		if i < len(placed) {
			j.CPUs = max(1, placed[i].CPUs)
			if placed[i].Site == v.Site { // it ran where it was planned to
				j.Share = placed[i].Share
			}
		}
		x.Jobs = append(x.Jobs, j)
	}
	for i := range n.Entries {
		e := &n.Entries[i]
		x.Amounts = append(x.Amounts, ledger.SettledAmount{Kind: e.Kind, Unit: e.Unit, Amount: e.Amount.String(), Job: e.Job})
	}
	return x, nil
}
