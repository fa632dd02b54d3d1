package conformance

import (
	"bytes"
	"context"
	"fmt"

	"github.com/portolan-project/portolan/peers/wire"
)

// What an endpoint asks of what the kit shows: a view without sites, so that nothing of it is left.
var peerImportChecks = []check{
	{"PEER-IMP-1", chapter("Resources 1"), "the importer sends Pull when a session begins", pulls},
	{"PEER-IMP-2", chapter("Resources 3"), "Resources from a revision that the importer does not have are answered with Pull", pullsAgain},
	{"PEER-IMP-3", chapter("Resources 5; Compare"), "digests that do not agree are answered with Compare, by the right number of buckets", compares},
	{"PEER-IMP-4", chapter("Resources 4 and 5"), "digests that agree are not", agrees},
}

func pulls(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	q, err := await(ctx, v, 0, "Pull", func(*wire.Pull) bool { return true })
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("view %q, revision %d", q.View, q.Revision), nil
}

func pullsAgain(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if _, err := await(ctx, v, 0, "Pull", func(*wire.Pull) bool { return true }); err != nil {
		return "", err
	}
	mark, view := v.mark(), p.fresh("view")
	if _, err := v.give(ctx, &wire.Resources{View: view, From: 41, To: 42, Detail: wire.None}); err != nil {
		return "", err
	}
	q, err := await(ctx, v, mark, "Pull", func(*wire.Pull) bool { return true })
	if err != nil {
		return "", err
	}
	if q.View == view {
		return "", fmt.Errorf("the importer says that it has revision %d of a view of which it was sent nothing whole", q.Revision)
	}
	return fmt.Sprintf("view %q, revision %d", q.View, q.Revision), nil
}

// show shows nothing, with digests, and waits until all that is said to it was said.
func (v *visit) show(ctx context.Context, static, dynamic []byte) (view string, answers []wire.Message, err error) {
	if err := v.hasDigests(); err != nil {
		return "", nil, err
	}
	if _, err := await(ctx, v, 0, "Pull", func(*wire.Pull) bool { return true }); err != nil {
		return "", nil, err
	}
	mark := v.mark()
	view = v.p.fresh("view")
	err = v.caughtUp(ctx, &wire.Resources{View: view, To: 1, Detail: wire.None}, &wire.Digests{View: view, Revision: 1, Static: static, Dynamic: dynamic})
	if err == nil {
		err = v.quiet(ctx)
	}
	return view, v.since(mark), err
}

func compares(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	view, answers, err := v.show(ctx, bytes.Repeat([]byte{7}, 32), make([]byte, 32))
	if err != nil {
		return "", err
	}
	for _, m := range answers {
		c, ok := m.(*wire.Compare)
		switch {
		case !ok || c.View != view:
			continue
		case c.Revision != 1 || c.Buckets != 16:
			return "", fmt.Errorf("Compare is of revision %d by %d buckets: wanted revision 1, and 16 buckets for no sites", c.Revision, c.Buckets)
		case len(c.Static) == 0 || len(c.Dynamic) > 0:
			return "", fmt.Errorf("the static category differs and the dynamic one agrees, and Compare has them: %v, %v", len(c.Static) > 0, len(c.Dynamic) > 0)
		}
		return fmt.Sprintf("%d buckets", c.Buckets), nil
	}
	return "", fmt.Errorf("digests came that do not agree, and no Compare was sent; there came %s", kinds(answers))
}

func agrees(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	view, answers, err := v.show(ctx, make([]byte, 32), make([]byte, 32))
	if err != nil {
		return "", err
	}
	for _, m := range answers {
		switch m := m.(type) {
		case *wire.Compare:
			if m.View == view {
				return "", fmt.Errorf("the digests of no sites are zero, and were compared by %d buckets", m.Buckets)
			}
		case *wire.Pull:
			return "", fmt.Errorf("the view was sent whole, and pulled again (view %q, revision %d)", m.View, m.Revision)
		}
	}
	return "nothing was asked", nil
}
