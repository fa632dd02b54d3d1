package conformance

import (
	"context"
	"fmt"
	"strings"

	"github.com/portolan-project/portolan/peers/wire"
)

const strictness = "Messages: Strictness"

var peerStrictChecks = []check{
	{"PEER-STR-1", chapter(strictness), "an attribute that is not in the tables is refused", badOpening(` window="64"`, ` window="64" colour="blue"`)},
	{"PEER-STR-2", chapter(strictness), "an element of the namespace that is not in the tables is refused", badOpening(`</p:OpenSession>`, `<p:Colour>blue</p:Colour></p:OpenSession>`)},
	{"PEER-STR-3", chapter(strictness), "an element of no namespace is refused", badOpening(`</p:OpenSession>`, `<Colour>blue</Colour></p:OpenSession>`)},
	{"PEER-STR-4", chapter(strictness), "an attribute of another namespace has no effect", goodOpening(` window="64"`, ` window="64" x:colour="blue" xmlns:x="urn:x"`)},
	{"PEER-STR-5", chapter(strictness), "an element of another namespace has no effect", goodOpening(`</p:OpenSession>`, `<x:Colour xmlns:x="urn:x">blue</x:Colour></p:OpenSession>`)},
	{"PEER-STR-6", chapter("Messages: Fields"), "child elements in another order are refused", badOpening(`<p:Version>1</p:Version><p:Feature>digests</p:Feature>`, `<p:Feature>digests</p:Feature><p:Version>1</p:Version>`)},
	{"PEER-STR-7", chapter("Messages: Fields"), "an element that stands there once does not stand there twice", badOpening(`</p:OpenSession>`, `<p:Terms lease="600000" resend="1000"/></p:OpenSession>`)},
	{"PEER-STR-8", chapter("Messages: Fields (required)"), "a required attribute that is missing is told", badOpening(` window="64"`, ``)},
	{"PEER-STR-9", chapter("Messages: Fields (required)"), "a required element that is missing is told", badOpening(`<p:Version>1</p:Version>`, ``)},
	{"PEER-STR-10", chapter("OpenSession: beat"), "a number below its bound is refused", badOpening(` beat="30000"`, ` beat="999"`)},
	{"PEER-STR-11", chapter("OpenSession: beat"), "a number above its bound is refused", badOpening(` beat="30000"`, ` beat="300001"`)},
	{"PEER-STR-12", chapter("Messages: Fields (whole milliseconds)"), "a number that is none is refused", badOpening(` beat="30000"`, ` beat="3e4"`)},
	{"PEER-STR-13", chapter("OpenSession: session"), "a string above its bound is refused", badOpening(` instance="conformance"`, ` instance="`+strings.Repeat("x", 257)+`"`)},
	{"PEER-STR-14", chapter("OpenSession: instance (printable ASCII without blanks)"), "a string with a character that it does not take is refused", badOpening(` instance="conformance"`, ` instance="con formance"`)},
	{"PEER-STR-15", chapter("OpenSession: role"), "a word that is none of the values is refused", badOpening(` role="`, ` role="grand`)},
	{"PEER-STR-16", chapter("Messages: Fields (UTC ending in Z)"), "a moment of another zone is refused", badClock},
	{"PEER-STR-17", chapter("Messages: Strictness"), "text between elements is refused", badOpening(`</p:OpenSession>`, `blue</p:OpenSession>`)},
	{"PEER-STR-18", chapter("OpenSession: Terms"), "terms that break their own rule are refused", badOpening(` lease="600000"`, ` lease="1000"`)},
	{"PEER-STR-19", chapter("Exchange: first"), "items without the number of the first are refused", badExchange(1, ` first="`, ` x:first="`)},
	{"PEER-STR-20", chapter("Exchange: sent"), "items beyond what is said to be sent are refused", badExchange(1, ` sent="`, ` x:sent="`)},
	{"PEER-STR-21", chapter("Exchange: items (0 to 1000)"), "more than 1000 items in one frame are refused", tooMany},
	{"PEER-STR-22", chapter("Exchange: items"), "an item that is none is refused, and with it the whole frame", badExchange(2, `</p:Exchange>`, `<p:Gossip/></p:Exchange>`)},
	{"PEER-STR-23", chapter("Items: token"), "a token that is none is refused", badExchange(1, ` token="1.1"`, ` token="1.01"`)},
	{"PEER-STR-24", chapter("Heartbeat; Frames, numbers, cursors"), "done above got is refused", badBeat(` clock="`, ` got="1" done="2" clock="`)},
	{"PEER-STR-25", chapter("CloseSession: closing"), "a CloseSession that does not say how far it is is refused", badClose},
	{"PEER-STR-26", chapter("Sessions: Opening (features); Faults: BadMessage"), "after an item of a feature that was not agreed on the session is closed", brokenByFeature},
}

// changed gives the text of an OpenSession with a part of it replaced.
func (p *probe) changed(old, text string) (string, *wire.Open, error) {
	o := p.offer(nil)
	xml, err := textOf(o)
	if err != nil {
		return "", nil, err
	}
	return replaced(xml, old, text, o)
}

func replaced(xml, old, text string, o *wire.Open) (string, *wire.Open, error) {
	if !strings.Contains(xml, old) {
		return "", nil, fmt.Errorf("the kit's message has no %s, which is a mistake of the kit", old)
	}
	return strings.Replace(xml, old, text, 1), o, nil
}

// badOpening wants BadMessage for an OpenSession with something changed.
func badOpening(old, text string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		xml, _, err := p.changed(old, text)
		if err != nil {
			return "", err
		}
		m, err := p.say(ctx, p.carrying("OpenSession", xml))
		if _, ok := m.(*wire.Opened); ok {
			p.visit = nil // it took the place of what stood
		}
		return wantCode(m, err, wire.BadMessage)
	}
}

// goodOpening wants a session all the same.
func goodOpening(old, text string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		v, err := p.standing(ctx)
		if err != nil {
			return "", err
		}
		// The same request, so that no other session need be opened.
		xml, err := textOf(v.open)
		if err != nil {
			return "", err
		}
		xml, _, err = replaced(xml, old, text, v.open)
		if err != nil {
			return "", err
		}
		m, err := p.say(ctx, p.carrying("OpenSession", xml))
		if err != nil {
			return "", err
		}
		a, ok := m.(*wire.Opened)
		if !ok || a.Session != v.open.Session {
			return "", fmt.Errorf("the answer is %s, and not that to the same request", wire.Name(m).Local)
		}
		return "the same session", nil
	}
}

func badClock(ctx context.Context, p *probe) (string, error) {
	xml, err := textOf(p.offer(nil))
	if err != nil {
		return "", err
	}
	before, rest, ok := strings.Cut(xml, ` clock="`)
	_, after, whole := strings.Cut(rest, `"`)
	if !ok || !whole {
		return "", fmt.Errorf("the kit's message has no clock, which is a mistake of the kit")
	}
	m, err := p.say(ctx, p.carrying("OpenSession", before+` clock="2026-01-02T03:04:05+01:00"`+after))
	return wantCode(m, err, wire.BadMessage)
}

// badExchange sends a frame with something changed, and wants BadMessage.
func badExchange(items int, old, text string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		v, err := p.standing(ctx)
		if err != nil {
			return "", err
		}
		p.visit = nil // BadMessage closes the session
		f := v.frame()
		f.First, f.Items, f.Sent = v.sent+1, v.asks(items), v.sent+uint64(items)
		xml, err := textOf(&wire.Exchange{Frame: f})
		if err != nil {
			return "", err
		}
		xml, _, err = replaced(xml, old, text, nil)
		if err != nil {
			return "", err
		}
		xml = strings.Replace(xml, `<p:Exchange `, `<p:Exchange xmlns:x="urn:x" `, 1)
		m, err := p.say(ctx, p.carrying("Exchange", xml))
		return wantCode(m, err, wire.BadMessage)
	}
}

func tooMany(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	p.visit = nil
	f := v.frame()
	f.First, f.Items, f.Sent = v.sent+1, v.asks(1), v.sent+wire.MaxItems+1
	xml, err := textOf(&wire.Exchange{Frame: f})
	if err != nil {
		return "", err
	}
	item, err := textOf(f.Items[0])
	if err != nil {
		return "", err
	}
	xml, _, err = replaced(xml, `</p:Exchange>`, strings.Repeat(item, wire.MaxItems)+`</p:Exchange>`, nil)
	if err != nil {
		return "", err
	}
	m, err := p.say(ctx, p.carrying("Exchange", xml))
	return wantCode(m, err, wire.BadMessage)
}

func badBeat(old, text string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		v, err := p.begin(ctx, nil)
		if err != nil {
			return "", err
		}
		xml, err := textOf(&wire.Heartbeat{Frame: v.frame()})
		if err != nil {
			return "", err
		}
		xml, _, err = replaced(xml, old, text, nil)
		if err != nil {
			return "", err
		}
		m, err := p.say(ctx, p.carrying("Heartbeat", xml))
		return wantCode(m, err, wire.BadMessage)
	}
}

func badClose(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	p.visit = nil
	f := v.frame()
	f.Closing = wire.Draining
	xml, err := textOf(&wire.Close{Frame: f, Reason: wire.Shutdown})
	if err != nil {
		return "", err
	}
	xml, _, err = replaced(xml, ` closing="draining"`, ``, nil)
	if err != nil {
		return "", err
	}
	m, err := p.say(ctx, p.carrying("CloseSession", xml))
	return wantCode(m, err, wire.BadMessage)
}

func brokenByFeature(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, func(o *wire.Open) { o.Features = nil })
	if err != nil {
		return "", err
	}
	f := v.frame()
	v.with(&f, &wire.Read{About: p.unknown(), Request: 1, Stream: wire.Stdout, Most: 10})
	m, err := p.send(ctx, &wire.Exchange{Frame: f}, 0)
	if _, err := wantCode(m, err, wire.BadMessage); err != nil {
		return "", err
	}
	return v.over(ctx)
}
