package replica

import (
	"context"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
)

// Together gives what makes agreements with several domains as one: the holder, in place of this process.
func (r *Replica) Together() agreement.Coordinator { return there{r} }

type there struct{ r *Replica }

var _ agreement.Coordinator = there{}

// ask has the holder answer a request that came by HTTP, and says that nobody can where there is none.
func (t there) ask(ctx context.Context) error {
	if p := passingOf(ctx); p != nil && t.r.holder() != nil {
		p.on()
	}
	return fail.Errorf("replica.Together", fail.Unavailable, "",
		"agreements with several domains are made by the gateway that has the sites, which is not there now: try again later")
}

func (t there) CreateTogether(ctx context.Context, _ *agreement.TogetherRequest) (*agreement.Together, error) {
	return nil, t.ask(ctx)
}

func (t there) Together(ctx context.Context, _ string) (*agreement.Together, error) {
	return nil, t.ask(ctx)
}

func (t there) ListTogether(ctx context.Context, _ string, _ int) ([]string, error) {
	return nil, t.ask(ctx)
}

func (t there) TerminateTogether(ctx context.Context, _ string, _ *etree.Element) error {
	return t.ask(ctx)
}

func (t there) TemplatesOf(ctx context.Context, _, _ string) ([]agreement.Template, error) {
	return nil, t.ask(ctx)
}
