package peers

import (
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// Handler is told of what happens in the sessions of a Table. Calls about one domain come
// one after the other, in the order in which things happened; those about two domains may
// come at once. A call may use the Table, Put too, but should not wait long: what comes
// after it waits, and in the end the other side does, by its credit.
type Handler interface {
	// Opened: a session with the domain begins. What was put in an earlier one and not
	// acknowledged is gone: it is to be told anew, resources by a Pull, jobs by their records.
	Opened(domain string, a session.Agreement)

	// Turned: the session went to another phase, and why. From session.Lost to
	// session.Alive is one that was resumed: nothing of it was lost. The end is Closed's.
	Turned(domain string, t session.Turn)

	// Draining: the other side drains the session. What was put still goes, Put takes no
	// more; Closed follows.
	Draining(domain, sentence string)

	// Closed: the session is over. Another may follow, with Opened.
	Closed(domain string, reason wire.CloseReason, sentence string)

	// Deliver hands over items of the other side: each once in a session, in order. done is
	// to be called when what they caused is durable, now or later and from any goroutine;
	// the other side keeps them until then, and sends no more than its credit. Calls of
	// done may come in any order; told are those before the first that is not done.
	Deliver(domain string, items []wire.Message, done func())

	// Free: there is room for items again, after Put answered fail.Exhausted. It is told once
	// for any number of such answers, and it may be told before Put has returned: who notes
	// that there is no room does so before it calls Put, and takes it back where there was some.
	Free(domain string)
}
