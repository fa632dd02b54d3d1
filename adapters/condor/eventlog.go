package condor

import (
	"bytes"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The numbers of the events in a job event log that mean something here.
const (
	eventSubmit        = 0
	eventExecute       = 1
	eventEvicted       = 4
	eventTerminated    = 5
	eventImageSize     = 6
	eventShadow        = 7
	eventAborted       = 9
	eventSuspended     = 10
	eventUnsuspended   = 11
	eventHeld          = 12
	eventReleased      = 13
	eventDisconnected  = 22
	eventReconnected   = 23
	eventReconnectFail = 24
)

// event is one record of a job event log.
type event struct {
	number        int
	cluster, proc int
	attributes    map[string]string // the other attributes, as text
}

func (e *event) text(name string) string { return e.attributes[name] }

func (e *event) number64(name string) (int64, bool) {
	n, err := strconv.ParseInt(e.attributes[name], 10, 64)
	return n, err == nil
}

func (e *event) yes(name string) bool { return e.attributes[name] == "true" }

// time gives when the event was. The log says it in the local time of the schedd's
// machine, which is taken for the gateway's.
func (e *event) time() time.Time {
	for _, form := range []string{"2006-01-02T15:04:05.999999", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(form, e.attributes["EventTime"], time.Local); err == nil {
			return t
		}
	}
	return time.Time{}
}

// Bounds of a record.
const (
	maxEvent      = 1 << 20 // bytes
	maxAttributes = 512
	maxAttribute  = 64 << 10 // bytes of one value
	maxNesting    = 32
)

// The form is that of log_xml: records without a root, each an element "c" of
// attributes ("a" with a name n) that hold a string, a number, a boolean or another
// record. A record begins and ends at the beginning of a line, where nothing inside of
// one does.
var (
	opening = []byte("<c>")
	closing = []byte("</c>")
)

// scan takes whole records off the beginning of data. It gives what is left, which may
// be the beginning of another, and how many damaged ones were passed over.
func scan(data []byte, take func(*event)) (rest []byte, damaged int) {
	for {
		start := lineStart(data, opening)
		if start < 0 {
			// Nothing but blanks, or a line that is not whole yet, may stand between.
			if i := bytes.LastIndexByte(data, '\n'); i >= 0 {
				if len(bytes.TrimSpace(data[:i])) > 0 {
					damaged++
				}
				data = data[i+1:]
			}
			if len(data) > maxEvent {
				return nil, damaged + 1
			}
			return data, damaged
		}
		if len(bytes.TrimSpace(data[:start])) > 0 {
			damaged++
		}
		data = data[start:]
		end := lineStart(data[len(opening):], closing)
		again := lineStart(data[len(opening):], opening)
		switch {
		case again >= 0 && (end < 0 || again < end): // who wrote it died in the middle
			damaged++
			data = data[len(opening)+again:]
			continue
		case end < 0 && len(data) > maxEvent:
			damaged++
			data = data[len(opening):]
			continue
		case end < 0:
			return data, damaged
		}
		end += len(opening) + len(closing)
		if e := parseEvent(data[:end]); e != nil {
			take(e)
		} else {
			damaged++
		}
		data = data[end:]
	}
}

// lineStart finds a word at the beginning of a line; -1 if there is none.
func lineStart(data, word []byte) int {
	if bytes.HasPrefix(data, word) {
		return 0
	}
	for from := 0; ; {
		i := bytes.Index(data[from:], word)
		if i < 0 {
			return -1
		}
		if i += from; data[i-1] == '\n' {
			return i
		}
		from = i + 1
	}
}

// parseEvent reads one record; nil if it is none.
func parseEvent(data []byte) *event {
	if len(data) > maxEvent {
		return nil
	}
	e := &event{attributes: map[string]string{}}
	p := eventParser{rest: data, event: e}
	if !p.word("<c>") || !p.record(0) || p.bad {
		return nil
	}
	number, ok := e.number64("EventTypeNumber")
	cluster, okC := e.number64("Cluster")
	proc, okP := e.number64("Proc")
	if !ok || !okC || !okP || number < 0 || number > 1<<16 || cluster < 0 || cluster > 1<<40 || proc < -1 || proc > 1<<40 {
		return nil
	}
	e.number, e.cluster, e.proc = int(number), int(cluster), int(proc)
	return e
}

type eventParser struct {
	rest  []byte
	event *event
	bad   bool
}

// word takes a word after blanks.
func (p *eventParser) word(w string) bool {
	p.rest = bytes.TrimLeft(p.rest, " \t\r\n")
	if !bytes.HasPrefix(p.rest, []byte(w)) {
		return false
	}
	p.rest = p.rest[len(w):]
	return true
}

// until takes the text up to a word, and the word.
func (p *eventParser) until(w string) (string, bool) {
	i := bytes.Index(p.rest, []byte(w))
	if i < 0 {
		return "", false
	}
	s := string(p.rest[:i])
	p.rest = p.rest[i+len(w):]
	return s, true
}

// record reads the attributes of a record up to its end. Those of records within are
// passed over.
func (p *eventParser) record(depth int) bool {
	if depth > maxNesting {
		return false
	}
	for !p.word("</c>") {
		if !p.word(`<a n="`) {
			return false
		}
		name, ok := p.until(`">`)
		if !ok || len(name) > 256 {
			return false
		}
		value, ok := p.value(depth)
		if !ok || !p.word("</a>") {
			return false
		}
		if depth == 0 && len(p.event.attributes) < maxAttributes {
			p.event.attributes[unescape(name)] = value
		}
	}
	return true
}

func (p *eventParser) value(depth int) (string, bool) {
	switch {
	case p.word("<c>"):
		return "", p.record(depth + 1)
	case p.word(`<b v="t"/>`):
		return "true", true
	case p.word(`<b v="f"/>`):
		return "false", true
	case p.word("<un/>"), p.word("<er/>"), p.word("<s/>"), p.word("<l/>"):
		return "", true
	case p.word("<l>"):
		for !p.word("</l>") {
			if _, ok := p.value(depth + 1); !ok || depth > maxNesting {
				return "", false
			}
		}
		return "", true
	}
	for _, kind := range []string{"s", "i", "r", "e", "at", "rt", "t"} {
		if p.word("<" + kind + ">") {
			text, ok := p.until("</" + kind + ">")
			if len(text) > maxAttribute {
				text = strings.ToValidUTF8(text[:maxAttribute], "")
			}
			return unescape(text), ok
		}
	}
	return "", false
}

// unescape takes the five entities of XML, and characters by number, back.
func unescape(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if strings.IndexByte(s, '&') < 0 {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '&')
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		end := strings.IndexByte(s[:min(len(s), 12)], ';')
		if end < 0 {
			b.WriteByte('&')
			s = s[1:]
			continue
		}
		switch word := s[1:end]; word {
		case "lt":
			b.WriteByte('<')
		case "gt":
			b.WriteByte('>')
		case "amp":
			b.WriteByte('&')
		case "quot":
			b.WriteByte('"')
		case "apos":
			b.WriteByte('\'')
		default:
			base, digits := 10, strings.TrimPrefix(word, "#")
			if hex, ok := strings.CutPrefix(digits, "x"); ok {
				base, digits = 16, hex
			}
			n, err := strconv.ParseInt(digits, base, 32)
			if err != nil || !strings.HasPrefix(word, "#") || !utf8.ValidRune(rune(n)) || n == 0 {
				b.WriteString(s[:end+1])
			} else {
				b.WriteRune(rune(n))
			}
		}
		s = s[end+1:]
	}
	b.WriteString(s)
	return b.String()
}
