package wire

import "time"

// Bounds of sessions.
const (
	MaxItems    = 1000        // in one message
	MaxWindow   = 65536       // items that may be under way
	MaxSeq      = 1<<62 - 1   // of a session
	MaxVOs      = 1000        //
	MaxFeatures = 64          //
	MaxMessage  = 8 << 20     // bytes of a message, as it is sent
	MaxDomain   = 255         // bytes
	MaxID       = 256         // bytes of a session's, a job's, a view's name
	MaxReason   = 1024        // bytes of a sentence
	MinBeat     = time.Second // between two signs of life
	MaxBeat     = 5 * time.Minute
	MaxLost     = 24 * time.Hour // from the last sign of life to the phase lost
)

// Version is the version of the protocol that this package speaks.
const Version = 1

// Role is what the sender is to the receiver.
type Role string

// The roles. A child's sites are shown as its parent's own to others.
const (
	Peer   Role = "peer"
	Parent Role = "parent"
	Child  Role = "child"
)

// Other gives the role of the other side.
func (r Role) Other() Role {
	switch r {
	case Parent:
		return Child
	case Child:
		return Parent
	case Peer:
	}
	return Peer
}

// Detail is how much of its resources an exporter shows: resourcemodel.Detail.
type Detail string

// The details.
const (
	Full        Detail = "full"
	Categorized Detail = "categorized"
	Simple      Detail = "simple"
	None        Detail = "none"
)

// Party is what one side tells of itself when the session is opened.
type Party struct {
	Domain   string
	Software string
	Endpoint string
	Role     Role
	Provides bool
	Consumes bool
	Shows    Detail
	Every    time.Duration
	VOs      []string
}

func partyFields(v *visit, p *Party) {
	str(v, "domain", &p.Domain, 1, MaxDomain, domain, "the domain that the sender speaks for; it must be the one that its certificate or key is trusted for")
	str(v, "software", &p.Software, 0, 128, line, "name and version of the sender's software, for people")
	str(v, "endpoint", &p.Endpoint, 0, 2048, word, "URL at which the sender takes requests; absent: it is outbound-only, and all that it is to be told waits for its polls")
	enum(v, "role", &p.Role, true, "what the sender is to the receiver; the other side must say the opposite", Peer, Parent, Child)
	yes(v, "provides", &p.Provides, "the sender takes jobs of the receiver")
	yes(v, "consumes", &p.Consumes, "the sender may give jobs to the receiver")
	enum(v, "shows", &p.Shows, true, "the detail at which the sender shows its resources to the receiver; it is the exporter's choice and may change in any Resources", Full, Categorized, Simple, None)
	span(v, "every", &p.Every, 0, time.Hour, "the sender pushes what changed in its resources at most this often; 0 is as it changes")
	words(v, "VO", &p.VOs, 0, MaxVOs, MaxID, line, "a VO whose users the sender vouches for, or serves")
}

// Open asks for a session.
type Open struct {
	Session  string
	Instance string
	Party
	Versions []string
	Features []string
	Beat     time.Duration
	Lost     time.Duration
	Window   int
	Clock    time.Time
	Terms    Terms
}

func (m *Open) visit(v *visit) {
	str(v, "session", &m.Session, 1, MaxID, word, "name of the session, of the sender's making and never used before; the same again, with the same content, is the same request")
	str(v, "instance", &m.Instance, 1, MaxID, word, "changes whenever the sender lost what it knew of its sessions, as by a restart")
	span(v, "beat", &m.Beat, MinBeat, MaxBeat, "the shortest time between two signs of life that the sender wants")
	span(v, "lost", &m.Lost, 0, MaxLost, "silence after which the sender wants to take the other for lost; 0 has no wish")
	num(v, "window", &m.Window, 1, MaxWindow, "items that the receiver may send before any is done with")
	when(v, "clock", &m.Clock, true, "the sender's clock as it sends this")
	partyFields(v, &m.Party)
	words(v, "Version", &m.Versions, 1, 16, 16, word, "a version of this protocol that the sender speaks")
	words(v, "Feature", &m.Features, 0, MaxFeatures, 128, word, "an optional part of the protocol that the sender knows")
	one(v, "Terms", &m.Terms, termsFields, "the terms under which the sender would hand jobs over, and take them")
}

// Opened agrees to a session. What both sides must know is said whole.
type Opened struct {
	Session  string
	Instance string
	Party
	Version  string
	Features []string
	Beat     time.Duration
	Lost     time.Duration
	Window   int
	Clock    time.Time
	Terms    Terms
}

func (m *Opened) visit(v *visit) {
	str(v, "session", &m.Session, 1, MaxID, word, "the request's")
	str(v, "instance", &m.Instance, 1, MaxID, word, "the responder's, as in OpenSession")
	str(v, "version", &m.Version, 1, 16, word, "the highest version that both speak")
	span(v, "beat", &m.Beat, MinBeat, MaxBeat, "agreed: the longer of both wishes")
	span(v, "lost", &m.Lost, 3*MinBeat, MaxLost, "agreed: the longer of both wishes and of six times beat")
	num(v, "window", &m.Window, 1, MaxWindow, "items that the requester may send before any is done with")
	when(v, "clock", &m.Clock, true, "the responder's clock as it sends this")
	partyFields(v, &m.Party)
	words(v, "Feature", &m.Features, 0, MaxFeatures, 128, word, "a feature that both know, in the order of the alphabet")
	one(v, "Terms", &m.Terms, termsFields, "agreed: the shorter lease; the longer skew, stopWithin, resend and keep")
}

// Closing says how far a session's end has come.
type Closing string

// The steps. None is "".
const (
	Draining Closing = "draining" // the sender adds no items; those there are still go and are done with
	Ended    Closing = "ended"    // the sender has closed
)

// Frame is how one side stands, and some of its items. Every message of an open session
// is one.
type Frame struct {
	Session string
	Number  uint64
	Heard   uint64
	Sent    uint64
	Got     uint64
	Done    uint64
	Limit   uint64
	Closing Closing
	Clock   time.Time
	// Hold and Poll are of requests only.
	Hold time.Duration
	Poll bool
	// First is the number of the first of Items; 0 where there are none.
	First uint64
	Items []Message
}

func (m *Frame) head(v *visit) {
	str(v, "session", &m.Session, 1, MaxID, word, "name of the session")
	num(v, "number", &m.Number, 1, MaxSeq, "counts the frames that the sender makes in this session, requests and answers together, from 1; a message that is sent again is the same frame, or a new one with a new number")
	num(v, "heard", &m.Heard, 0, MaxSeq, "the highest number of the other side's frames that the sender has read")
	num(v, "sent", &m.Sent, 0, MaxSeq, "the number of the sender's last item")
	num(v, "got", &m.Got, 0, MaxSeq, "the sender has all of the other side's items up to this one: the cursor")
	num(v, "done", &m.Done, 0, MaxSeq, "the sender is done with all of the other side's items up to this one, and what they caused is durable: the acknowledgement")
	num(v, "limit", &m.Limit, 0, MaxSeq, "the other side may send items up to this one: the credit. It never gets less")
	enum(v, "closing", &m.Closing, false, "absent while the session goes on", Draining, Ended)
	when(v, "clock", &m.Clock, true, "the sender's clock as it sends this")
	v.check(m.Done <= m.Got, "@done", "is %d, above got, %d: what was not got can't be done", m.Done, m.Got)
}

func (m *Frame) hold(v *visit) {
	span(v, "hold", &m.Hold, 0, MaxBeat, "how long the answer may be held back; 0 asks for it at once")
	yes(v, "poll", &m.Poll, "the answer is to be held until there is something for the sender, or hold is over")
}

func (m *Frame) body(v *visit) {
	num(v, "first", &m.First, 0, MaxSeq, "the number of the first item here; absent without items")
	visitItems(v, &m.Items)
	v.check((m.First == 0) == (len(m.Items) == 0), "@first", "must be there with items, and only then")
	v.check(m.First == 0 || m.First+uint64(len(m.Items))-1 <= m.Sent, "@sent", "is below the number of the last item here")
}

// Exchange is a frame with items, or a poll for some.
type Exchange struct{ Frame }

func (m *Exchange) visit(v *visit) { m.head(v); m.hold(v); m.body(v) }

// Exchanged answers it.
type Exchanged struct{ Frame }

func (m *Exchanged) visit(v *visit) { m.head(v); m.body(v) }

// Heartbeat is a frame without items.
type Heartbeat struct{ Frame }

func (m *Heartbeat) visit(v *visit) { m.head(v); m.bare(v) }

// HeartbeatAnswer answers it.
type HeartbeatAnswer struct{ Frame }

func (m *HeartbeatAnswer) visit(v *visit) { m.head(v); m.bare(v) }

func (m *Frame) bare(v *visit) {
	v.check(len(m.Items) == 0 && m.First == 0, "items", "must not be here: only Exchange has items")
}

// Resume takes a session up again after a break.
type Resume struct {
	Frame
	Instance string
}

func (m *Resume) visit(v *visit) {
	str(v, "instance", &m.Instance, 1, MaxID, word, "the sender's, as it was when the session was opened; another is a loss of state, and the session is over")
	m.head(v)
	m.bare(v)
}

// Resumed answers it.
type Resumed struct {
	Frame
	Instance string
}

func (m *Resumed) visit(v *visit) { (*Resume)(m).visit(v) }

// CloseReason says why a session is closed.
type CloseReason string

// The reasons.
const (
	Shutdown   CloseReason = "shutdown"   // the sender stops
	Withdrawn  CloseReason = "withdrawn"  // an administrator ended the relation
	Superseded CloseReason = "superseded" // another session of the same two domains stands in its place
	Broken     CloseReason = "broken"     // the protocol was broken; the sentence says how
	Drained    CloseReason = "drained"    // all items of both sides are done with
	Forgotten  CloseReason = "forgotten"  // one side lost what it knew of the session
)

// Close ends a session.
type Close struct {
	Frame
	Reason   CloseReason
	Sentence string
}

func (m *Close) visit(v *visit) {
	enum(v, "reason", &m.Reason, true, "why", Shutdown, Withdrawn, Superseded, Broken, Drained, Forgotten)
	str(v, "sentence", &m.Sentence, 0, MaxReason, line, "the same for a person")
	m.head(v)
	m.bare(v)
	v.check(m.Closing != "", "@closing", "is missing")
}

// Closed answers it: how the responder stands.
type Closed struct{ Frame }

func (m *Closed) visit(v *visit) { m.head(v); m.bare(v) }
