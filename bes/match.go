package bes

import (
	"context"
	"strconv"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Matcher is the ability to say what would become of an activity without creating it:
// the operation MatchActivity of the activity control port type. A Controller may have
// it. Errors are those of CreateActivity, but that an activity which could run nowhere
// is none: the Match says so.
type Matcher interface {
	MatchActivity(context.Context, *CreateActivityRequest) (*Match, error)
}

// Match is what would become of an activity.
type Match struct {
	Could    bool   // some place could ever run it
	Now      bool   // some place could start it now
	Sentence string // where it would go, or what it would wait for
	Nearest  string // the smallest change of the document with which it could start now; "" where there is none
	Places   []MatchPlace
}

// MatchPlace is what one place says.
type MatchPlace struct {
	Name    string // "site/share/environment"
	Could   bool
	Now     bool
	Reasons []string // sentences: what stands against it
}

// MaxMatchPlaces bounds the places of an answer.
const MaxMatchPlaces = 1024

func (s *server) match(ctx context.Context, r request, out *etree.Element) error {
	req, err := r.createActivity(s.o.JSDL)
	if err != nil {
		return err
	}
	m, err := s.matcher.MatchActivity(ctx, req)
	if err != nil {
		return err
	}
	text(out, "p:Could", strconv.FormatBool(m.Could))
	text(out, "p:Now", strconv.FormatBool(m.Now))
	text(out, "p:Reason", m.Sentence)
	textIf(out, "p:Nearest", m.Nearest)
	for _, p := range m.Places[:min(len(m.Places), MaxMatchPlaces)] {
		e := out.CreateElement("p:Place")
		text(e, "p:Name", p.Name)
		text(e, "p:Could", strconv.FormatBool(p.Could))
		text(e, "p:Now", strconv.FormatBool(p.Now))
		for _, reason := range p.Reasons {
			text(e, "p:Reason", reason)
		}
	}
	return nil
}

// MatchActivity asks what would become of an activity; nothing is created.
func (c *Client) MatchActivity(ctx context.Context, req *CreateActivityRequest) (*Match, error) {
	body, err := document(controlPort.message(opMatch), req)
	if err != nil {
		return nil, err
	}
	r, err := c.call(ctx, controlPort, opMatch, body, soap.Idempotent)
	if err != nil {
		return nil, err
	}
	m := &Match{Sentence: childText(r.Payload, "Reason"), Nearest: childText(r.Payload, "Nearest")}
	var known bool
	if m.Could, known = parseBool(childText(r.Payload, "Could")); !known {
		return nil, unreadable(opMatch, "it does not say whether the activity could run")
	}
	m.Now, _ = parseBool(childText(r.Payload, "Now"))
	for _, e := range r.Payload.ChildElements() {
		if e.Tag != "Place" || len(m.Places) == MaxMatchPlaces {
			continue
		}
		p := MatchPlace{Name: childText(e, "Name")}
		p.Could, _ = parseBool(childText(e, "Could"))
		p.Now, _ = parseBool(childText(e, "Now"))
		for _, reason := range e.ChildElements() {
			if reason.Tag == "Reason" {
				p.Reasons = append(p.Reasons, xmldoc.Text(reason))
			}
		}
		m.Places = append(m.Places, p)
	}
	return m, nil
}
