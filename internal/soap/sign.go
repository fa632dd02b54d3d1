package soap

import (
	"context"
	"slices"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// bytes writes the envelope behind b, signed if there is what signs. It makes no tree
// where none is needed.
func (m *message) bytes(ctx context.Context, sign func(context.Context, *etree.Element) error, b []byte) ([]byte, error) {
	if sign == nil {
		return m.append(b), nil
	}
	shell := *m
	shell.body = nil
	doc, err := xmldoc.ReadBytes(shell.append(nil), xmldoc.Limits{})
	if err != nil {
		return nil, fail.E("soap.Sign", fail.Internal, m.action, err)
	}
	root := doc.Root()
	if m.body != nil {
		xmldoc.Child(root, m.version.Namespace(), "Body").AddChild(m.body)
	}
	if err := sign(ctx, root); err != nil {
		return nil, fail.E("soap.Sign", fail.KindOf(err), m.action, err)
	}
	const declaration = `<?xml version="1.0" encoding="UTF-8"?>`
	size := xmldoc.Size(root) // which may be a megabyte: it is not to grow to that bit by bit
	b = slices.Grow(b, len(declaration)+size+size/8)
	return xmldoc.Append(append(b, declaration...), root), nil
}
