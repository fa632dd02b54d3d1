package broker

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/google/uuid"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// activityID is the reference parameter that names an activity.
const activityID = "ActivityId"

// reference gives the EPR of a job: the endpoint's own address with the id as
// its tail, for clients that drop reference parameters, and the id as a
// reference parameter.
func (b *Broker) reference(id string) soap.EPR {
	p := etree.NewElement("pt:" + activityID)
	p.CreateAttr("xmlns:pt", bes.NSPortolan)
	p.SetText(id)
	return soap.EPR{
		Address:             strings.TrimRight(b.cfg.BaseURL(), "/") + "/" + id,
		ReferenceParameters: []*etree.Element{p},
	}
}

// idOf gives the id that an EPR names. An EPR of another make names nothing
// that is known here (fail.NotFound).
func idOf(e soap.EPR) (string, error) {
	for _, p := range e.ReferenceParameters {
		if p.Tag == activityID && p.NamespaceURI() == bes.NSPortolan {
			return validID(strings.TrimSpace(p.Text()))
		}
	}
	return validID(e.Address[strings.LastIndexByte(e.Address, '/')+1:])
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
