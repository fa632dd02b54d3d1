package plugin

import (
	"github.com/portolan-project/portolan/adapters"
)

// KillForTest ends an adapter as the death of the gateway does: its plug-in is
// killed, and nobody closed it.
func KillForTest(a adapters.Adapter) {
	h := a.(interface{ itself() *host }).itself()
	if s, err := h.session("Kill"); err == nil {
		s.kill("the test kills it")
		<-s.done
	}
	_ = a.Close()
}
