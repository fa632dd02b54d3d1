package broker

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// reference gives the EPR of a job.
func (b *Broker) reference(id string) soap.EPR { return bes.NewEPR(b.cfg.BaseURL(), id) }

// idOf gives the id that an EPR names. An EPR of another make names nothing
// that is known here (fail.NotFound).
func idOf(e soap.EPR) (string, error) {
	id, ok := bes.ActivityID(e)
	if !ok {
		return "", errUnknown
	}
	return validID(id)
}

func validID(s string) (string, error) {
	id, err := uuid.Parse(s)
	if err != nil || len(s) != 36 {
		return "", errUnknown
	}
	return id.String(), nil
}

// newID gives an id that is ordered by time.
func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fail.E("broker.newID", fail.Internal, "", err)
	}
	return id.String(), nil
}

// idBefore gives the lowest id of a moment (RFC 9562 §5.7: 48 bits of milliseconds).
func idBefore(t time.Time) string {
	var id uuid.UUID
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, t.UnixMilli())))
	copy(id[:6], ms[2:])
	id[6] = 0x70
	return id.String()
}
