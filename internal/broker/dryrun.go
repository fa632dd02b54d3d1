package broker

import (
	"context"

	"github.com/portolan-project/portolan/bes"
)

var _ bes.Matcher = (*Broker)(nil)

// ExtensionMatch: the activity control port type has MatchActivity.
const ExtensionMatch = bes.NSPortolan + "/match"

// MatchActivity is Match in the words of BES.
func (b *Broker) MatchActivity(ctx context.Context, req *bes.CreateActivityRequest) (*bes.Match, error) {
	r, err := b.Match(ctx, req.Document, "")
	if err != nil {
		return nil, err
	}
	out := &bes.Match{Could: r.Could, Now: r.Now, Sentence: r.Sentence, Nearest: r.Nearest}
	for i := range r.Verdicts {
		if len(out.Places) == bes.MaxMatchPlaces {
			break
		}
		v := &r.Verdicts[i]
		p := bes.MatchPlace{Name: v.Place.String(), Could: v.Could, Now: v.Now}
		for _, c := range v.Clauses {
			p.Reasons = append(p.Reasons, c.Sentence)
		}
		out.Places = append(out.Places, p)
	}
	return out, nil
}
