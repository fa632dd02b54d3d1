package negotiator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Prefix is how the keys of all records of negotiations begin.
const Prefix = "negotiations/"

const (
	instancePrefix = Prefix + "instance/" // <id>: a negotiation
	ownerPrefix    = Prefix + "owner/"    // <owner>: which negotiations are the owner's, until when
	domainPrefix   = Prefix + "domain/"   // <domain>: and of all owners of a peer's domain

	maxOwned   = 1000      // negotiations of one owner, whatever the options say
	maxContext = 64 << 10  // bytes of a context
	maxRecord  = 768 << 10 // bytes of a negotiation
	maxID      = 128
)

// instance is a negotiation.
type instance struct {
	ID        string    `json:"id"`
	Owner     string    `json:"owner"`
	Domain    string    `json:"domain,omitempty"` // of the peer that the owner is of; "" is our own
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	Agreement string    `json:"agreement,omitempty"` // to be replaced; "" is none
	Context   []byte    `json:"context"`             // the neg:NegotiationContext
	Rounds    int       `json:"rounds,omitempty"`
	Offers    []*offer  `json:"offers,omitempty"` // in the order in which they came; never changed in place

	revision int64
}

// offer is one of either side.
type offer struct {
	ID       string               `json:"id"`
	To       string               `json:"to,omitempty"` // the offer that it answers; "" is none
	Depth    int                  `json:"depth"`        // 1 where it answers none
	Mine     bool                 `json:"mine,omitempty"`
	State    agreement.OfferState `json:"state"`
	Expires  time.Time            `json:"expires,omitzero"`
	Document []byte               `json:"document"` // the neg:NegotiationOffer
	// Agreement is the id of what a quote becomes; Held: it waits to be confirmed.
	Agreement string `json:"agreement,omitempty"`
	Held      bool   `json:"held,omitempty"`
}

func (i *instance) context() (*agreement.NegotiationContext, error) {
	doc, err := xmldoc.ReadBytes(i.Context, xmldoc.Limits{})
	if err != nil {
		return nil, err
	}
	return agreement.DecodeNegotiationContext(doc.Root())
}

// offer finds one by its id; nil is none.
func (i *instance) offer(id string) *offer {
	if k := slices.IndexFunc(i.Offers, func(o *offer) bool { return o.ID == id }); k >= 0 {
		return i.Offers[k]
	}
	return nil
}

func (o *offer) decode() (*agreement.NegotiationOffer, error) {
	return agreement.ParseNegotiationOffer(o.Document)
}

// group is negotiations that are counted together. Of those that are over and known as yet there may
// be some more than of those that are open.
type group struct {
	key, whose string
	open, kept int
}

const (
	keptMore   = 5  // times as many as may be open
	domainMore = 10 // times as many as one of its users may have
)

func (n *Negotiator) groups(i *instance) []group {
	all := []group{{ownerKey(i.Owner), "you have", n.opts.MaxOpen, keptMore * n.opts.MaxOpen}}
	if i.Domain != "" {
		most := domainMore * n.opts.MaxOpen
		all = append(all, group{domainKey(i.Domain), "all of " + i.Domain + " have", most, keptMore * most})
	}
	return all
}

// owned is one negotiation of an owner.
type owned struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
}

func instanceKey(id string) string { return instancePrefix + store.Segment(id) }

func ownerKey(owner string) string { return ownerPrefix + store.Path(3*maxID, "of", owner) }

func domainKey(domain string) string { return domainPrefix + store.Path(3*maxID, "of", domain) }

// record reads one record; nil: it is not there.
func (n *Negotiator) record(ctx context.Context, key string) ([]byte, int64, error) {
	// The key itself comes first of those that begin with it.
	records, _, err := n.st.ListRecords(ctx, key, store.RecordOptions{Limit: 1})
	if err != nil || len(records) == 0 || records[0].Key != key {
		return nil, 0, err
	}
	return records[0].Value, records[0].Revision, nil
}

// load reads a negotiation; nil: there is none.
func (n *Negotiator) load(ctx context.Context, id string) (*instance, error) {
	if id == "" || len(id) > maxID {
		return nil, nil
	}
	value, revision, err := n.record(ctx, instanceKey(id))
	if err != nil || value == nil {
		return nil, err
	}
	i := &instance{revision: revision}
	if err := json.Unmarshal(value, i); err != nil {
		return nil, fail.E("negotiator.load", fail.Internal, id, err)
	}
	return i, nil
}

// owned gives those of a group that are known as yet.
func (n *Negotiator) owned(ctx context.Context, g *group) ([]owned, int64, error) {
	value, revision, err := n.record(ctx, g.key)
	if err != nil || value == nil {
		return nil, revision, err
	}
	var list []owned
	if err := json.Unmarshal(value, &list); err != nil {
		return nil, 0, fail.E("negotiator.load", fail.Internal, g.key, err)
	}
	return list, revision, nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("negotiator: a record is no JSON: " + err.Error())
	}
	return b
}

// put writes, and gives errMoved where a record is not as it was read. Where the answer is
// lost, what is there by then tells.
func (n *Negotiator) put(ctx context.Context, changes ...store.RecordChange) error {
	_, err := n.st.PutRecords(ctx, nil, changes...)
	if f, ok := errors.AsType[*fail.Error](err); ok && f.Kind == fail.Conflict && f.Subject != "" {
		return errMoved
	}
	if !fail.Is(err, fail.Uncertain) {
		return err
	}
	value, _, unread := n.record(ctx, changes[0].Key)
	switch {
	case unread != nil:
		return err
	case bytes.Equal(value, changes[0].Value):
		return nil
	}
	return errMoved
}

// create writes a negotiation that is new, if its owner may have one more.
func (n *Negotiator) create(ctx context.Context, i *instance) error {
	now := n.now()
	sooner := func(a, b owned) int { return a.Expires.Compare(b.Expires) }
	changes := []store.RecordChange{{Key: instanceKey(i.ID), Value: encode(i)}}
	for _, g := range n.groups(i) {
		list, revision, err := n.owned(ctx, &g)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(o owned) bool { return n.over(&o, now) })
		if slices.ContainsFunc(list, func(o owned) bool { return o.ID == i.ID }) {
			return nil // it was written, and the answer lost
		}
		open := slices.DeleteFunc(slices.Clone(list), func(o owned) bool { return !o.Expires.After(now) })
		switch {
		case len(open) >= g.open:
			r := agreement.Refuse(agreement.NoCapacity, g.whose+" as many negotiations open as one may have at once; end one, or wait until one expires")
			r.Earliest = slices.MinFunc(open, sooner).Expires
			return r
		case len(list) >= g.kept:
			r := agreement.Refuse(agreement.NoCapacity, g.whose+" as many negotiations that have expired and are still known as one may have; end some, or wait until they are forgotten")
			r.Earliest = slices.MinFunc(list, sooner).Expires.Add(n.opts.Kept)
			return r
		}
		changes = append(changes, store.RecordChange{Key: g.key, Value: encode(append(list, owned{i.ID, i.Expires})), If: revision})
	}
	return n.put(ctx, changes...)
}

// over says that a negotiation is not known any more.
func (n *Negotiator) over(o *owned, now time.Time) bool {
	return !now.Before(o.Expires.Add(n.opts.Kept))
}

// save writes a negotiation that was changed.
func (n *Negotiator) save(ctx context.Context, i *instance) error {
	b := encode(i)
	if len(b) > maxRecord {
		return fail.Errorf("negotiator.Negotiate", fail.Exhausted, i.ID, "the offers of the negotiation would have %d bytes together; they may have %d: initiate another, and send shorter ones", len(b), maxRecord)
	}
	return n.put(ctx, store.RecordChange{Key: instanceKey(i.ID), Value: b, If: i.revision})
}

// remove forgets a negotiation.
func (n *Negotiator) remove(ctx context.Context, i *instance) error {
	now := n.now()
	changes := []store.RecordChange{{Key: instanceKey(i.ID), If: i.revision}}
	for _, g := range n.groups(i) {
		list, revision, err := n.owned(ctx, &g)
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(slices.Clone(list), func(o owned) bool { return o.ID == i.ID || n.over(&o, now) })
		switch {
		case len(left) == len(list):
		case len(left) == 0:
			changes = append(changes, store.RecordChange{Key: g.key, If: revision})
		default:
			changes = append(changes, store.RecordChange{Key: g.key, Value: encode(left), If: revision})
		}
	}
	return n.put(ctx, changes...)
}

const (
	sweepEvery = time.Minute
	sweepPage  = 100
)

// Run forgets negotiations some time after they have expired, until the context ends.
// Several replicas may run it.
func (n *Negotiator) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := n.sweep(ctx); err != nil && ctx.Err() == nil {
			n.opts.Log.Warn("negotiations that are over were not forgotten; they will be later", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// sweep forgets what has been over for as long as it is kept.
func (n *Negotiator) sweep(ctx context.Context) error {
	after := ""
	for {
		records, _, err := n.st.ListRecords(ctx, instancePrefix, store.RecordOptions{After: after, Limit: sweepPage})
		if err != nil {
			return err
		}
		for _, r := range records {
			after = r.Key
			i := &instance{revision: r.Revision}
			if err := json.Unmarshal(r.Value, i); err != nil {
				return fail.E("negotiator.sweep", fail.Internal, r.Key, err)
			}
			if n.now().Before(i.Expires.Add(n.opts.Kept)) {
				continue
			}
			if err := n.remove(ctx, i); err != nil && !errors.Is(err, errMoved) {
				return err
			}
		}
		if len(records) < sweepPage {
			return nil
		}
	}
}
