package ledger

import (
	"encoding/json"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// NSUsage is the namespace of usage records (GFD.98).
const NSUsage = "http://schema.ogf.org/urf/2003/09/urf"

// Statuses are those that a usage record may have (GFD.98 §8.1).
var Statuses = []string{"Aborted", "Completed", "Failed", "Held", "Queued", "Started", "Suspended"}

// Charge is what something cost.
type Charge struct {
	Amount  decimal.Decimal `json:"amount"`
	Unit    string          `json:"unit,omitempty"`
	Formula string          `json:"formula,omitempty"`
}

// JobUsage is what one job used: a usage record. Zero values are left out.
type JobUsage struct {
	RecordID    string    // of the record; needed
	Created     time.Time // of the record
	GlobalJobID string
	LocalJobID  string
	ProcessIDs  []string
	LocalUser   string
	GlobalUser  string
	JobName     string
	Project     string // the VO
	Agreement   string
	Status      string // one of Statuses; needed
	Wall        time.Duration
	UserCPU     time.Duration
	SystemCPU   time.Duration
	Start, End  time.Time
	Nodes       int
	Processors  int
	MemoryBytes int64 // the most at one time
	MachineName string
	SubmitHost  string
	Hosts       []string // the first is the primary one
	Queue       string
	// Charges are in a unit each; a record has one element for them, which takes the
	// first, and resources for the others.
	Charges []Charge
}

const maxRecordList = 100_000 // hosts, processes

// Check gives fail.Invalid for what no record can be made of.
func (u *JobUsage) Check() error {
	texts := []string{u.RecordID, u.GlobalJobID, u.LocalJobID, u.LocalUser, u.GlobalUser, u.JobName, u.Project, u.Agreement, u.MachineName, u.SubmitHost, u.Queue}
	texts = append(append(texts, u.ProcessIDs...), u.Hosts...)
	for _, c := range u.Charges {
		texts = append(texts, c.Unit, c.Formula)
	}
	switch {
	case u.RecordID == "":
		return invalid("Usage", u.GlobalJobID, "a usage record needs an id")
	case !slices.Contains(Statuses, u.Status):
		return invalid("Usage", u.RecordID, "%.40q is no status of a usage record; there are %s", u.Status, strings.Join(Statuses, ", "))
	case len(u.Hosts) > maxRecordList || len(u.ProcessIDs) > maxRecordList:
		return invalid("Usage", u.RecordID, "a usage record has at most %d hosts and processes", maxRecordList)
	case slices.ContainsFunc(texts, func(s string) bool { return !proper(s, maxEvidence) }):
		return invalid("Usage", u.RecordID, "a text of the usage record is longer than %d characters or has control characters", maxEvidence)
	case u.Wall < 0 || u.UserCPU < 0 || u.SystemCPU < 0 || u.Nodes < 0 || u.Processors < 0 || u.MemoryBytes < 0:
		return invalid("Usage", u.RecordID, "nothing that was used is below zero")
	case !u.Start.IsZero() && !u.End.IsZero() && u.End.Before(u.Start):
		return invalid("Usage", u.RecordID, "the job ended before it started")
	}
	return nil
}

// domainName is urf:domainNameType, without the empty one.
var domainName = regexp.MustCompile(`^([a-zA-Z0-9][a-zA-Z0-9'\-']*[a-zA-Z0-9]\.)*[a-zA-Z0-9][a-zA-Z0-9'\-']*[a-zA-Z0-9]$`)

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func child(parent *etree.Element, name, text string) *etree.Element {
	e := parent.CreateElement("urf:" + name)
	e.SetText(text)
	return e
}

func maybe(parent *etree.Element, name, text string) {
	if text != "" {
		child(parent, name, text)
	}
}

// host writes a name of the type that the schema asks for; any other is told as a
// description of one that is empty.
func host(parent *etree.Element, element, name string) *etree.Element {
	if len(name) <= 255 && domainName.MatchString(name) {
		return child(parent, element, name)
	}
	e := child(parent, element, "")
	e.CreateAttr("urf:description", name)
	return e
}

// element makes the record.
func (u *JobUsage) element() *etree.Element {
	r := etree.NewElement("urf:JobUsageRecord")
	id := child(r, "RecordIdentity", "")
	id.CreateAttr("urf:recordId", u.RecordID)
	if !u.Created.IsZero() {
		id.CreateAttr("urf:createTime", stamp(u.Created))
	}
	if u.GlobalJobID+u.LocalJobID != "" || len(u.ProcessIDs) > 0 {
		j := child(r, "JobIdentity", "")
		maybe(j, "GlobalJobId", u.GlobalJobID)
		maybe(j, "LocalJobId", u.LocalJobID)
		for _, p := range u.ProcessIDs {
			child(j, "ProcessId", p)
		}
	}
	if u.LocalUser+u.GlobalUser != "" {
		i := child(r, "UserIdentity", "")
		maybe(i, "LocalUserId", u.LocalUser)
		maybe(i, "GlobalUserName", u.GlobalUser)
	}
	maybe(r, "JobName", u.JobName)
	for i, c := range u.Charges {
		if i > 0 {
			break
		}
		e := child(r, "Charge", c.Amount.String())
		if c.Unit != "" {
			e.CreateAttr("urf:unit", c.Unit)
		}
		if c.Formula != "" {
			e.CreateAttr("urf:formula", c.Formula)
		}
	}
	child(r, "Status", u.Status)
	if u.MemoryBytes > 0 {
		m := child(r, "Memory", strconv.FormatInt(u.MemoryBytes, 10))
		m.CreateAttr("urf:storageUnit", "B")
		m.CreateAttr("urf:metric", "max")
	}
	if u.Wall > 0 {
		child(r, "WallDuration", agreement.FormatDuration(u.Wall))
	}
	for _, cpu := range []struct {
		of time.Duration
		as string
	}{{u.UserCPU, "user"}, {u.SystemCPU, "system"}} {
		if cpu.of > 0 {
			child(r, "CpuDuration", agreement.FormatDuration(cpu.of)).CreateAttr("urf:usageType", cpu.as)
		}
	}
	if u.Nodes > 0 {
		child(r, "NodeCount", strconv.Itoa(u.Nodes))
	}
	if u.Processors > 0 {
		child(r, "Processors", strconv.Itoa(u.Processors))
	}
	if !u.End.IsZero() {
		child(r, "EndTime", stamp(u.End))
	}
	if !u.Start.IsZero() {
		child(r, "StartTime", stamp(u.Start))
	}
	if u.MachineName != "" {
		host(r, "MachineName", u.MachineName)
	}
	if u.SubmitHost != "" {
		host(r, "SubmitHost", u.SubmitHost)
	}
	maybe(r, "Queue", u.Queue)
	maybe(r, "ProjectName", u.Project)
	for i, h := range u.Hosts {
		e := host(r, "Host", h)
		if i == 0 {
			e.CreateAttr("urf:primary", "true")
		}
	}
	if u.Agreement != "" {
		child(r, "Resource", u.Agreement).CreateAttr("urf:description", "agreement")
	}
	for i, c := range u.Charges {
		if i > 0 {
			e := child(r, "ConsumableResource", c.Amount.String())
			e.CreateAttr("urf:units", c.Unit)
			e.CreateAttr("urf:description", "charge")
		}
	}
	return r
}

// WriteXML writes a usage record 1.0 (GFD.98), a urf:JobUsageRecord. Errors are those
// of Check and of w.
func WriteXML(w io.Writer, u *JobUsage) error {
	if err := u.Check(); err != nil {
		return err
	}
	e := u.element()
	e.CreateAttr("xmlns:urf", NSUsage)
	return write(w, xmldoc.Marshal(e))
}

// WriteAllXML writes usage records as one urf:UsageRecords.
func WriteAllXML(w io.Writer, us []JobUsage) error {
	all := etree.NewElement("urf:UsageRecords")
	all.CreateAttr("xmlns:urf", NSUsage)
	for i := range us {
		if err := us[i].Check(); err != nil {
			return err
		}
		all.AddChild(us[i].element())
	}
	return write(w, xmldoc.Marshal(all))
}

func write(w io.Writer, b []byte) error {
	_, err := w.Write(append(b, '\n'))
	return err
}

// record is the same in JSON: the elements' names, durations and times as in XML,
// amounts as strings so that no digit is lost.
type record struct {
	RecordIdentity struct {
		RecordID   string `json:"recordId"`
		CreateTime string `json:"createTime,omitempty"`
	} `json:"RecordIdentity"`
	JobIdentity struct {
		GlobalJobID string   `json:"GlobalJobId,omitempty"`
		LocalJobID  string   `json:"LocalJobId,omitempty"`
		ProcessID   []string `json:"ProcessId,omitempty"`
	} `json:"JobIdentity,omitzero"`
	UserIdentity struct {
		LocalUserID    string `json:"LocalUserId,omitempty"`
		GlobalUserName string `json:"GlobalUserName,omitempty"`
	} `json:"UserIdentity,omitzero"`
	JobName      string            `json:"JobName,omitempty"`
	Charge       []Charge          `json:"Charge,omitempty"`
	Status       string            `json:"Status"`
	Memory       int64             `json:"Memory,omitempty"` // bytes
	WallDuration string            `json:"WallDuration,omitempty"`
	CPUDuration  map[string]string `json:"CpuDuration,omitempty"` // by usage type
	NodeCount    int               `json:"NodeCount,omitempty"`
	Processors   int               `json:"Processors,omitempty"`
	StartTime    string            `json:"StartTime,omitempty"`
	EndTime      string            `json:"EndTime,omitempty"`
	MachineName  string            `json:"MachineName,omitempty"`
	SubmitHost   string            `json:"SubmitHost,omitempty"`
	Queue        string            `json:"Queue,omitempty"`
	ProjectName  string            `json:"ProjectName,omitempty"`
	Host         []string          `json:"Host,omitempty"`
	Agreement    string            `json:"Agreement,omitempty"`
}

// WriteJSON writes the record as one JSON object. Errors are those of Check and of w.
func WriteJSON(w io.Writer, u *JobUsage) error {
	if err := u.Check(); err != nil {
		return err
	}
	b, err := u.json()
	if err != nil {
		return err
	}
	return write(w, b)
}

func (u *JobUsage) json() ([]byte, error) {
	span := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return agreement.FormatDuration(d)
	}
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return stamp(t)
	}
	r := record{
		JobName: u.JobName, Charge: u.Charges, Status: u.Status, Memory: u.MemoryBytes, WallDuration: span(u.Wall),
		NodeCount: u.Nodes, Processors: u.Processors, StartTime: at(u.Start), EndTime: at(u.End), MachineName: u.MachineName,
		SubmitHost: u.SubmitHost, Queue: u.Queue, ProjectName: u.Project, Host: u.Hosts, Agreement: u.Agreement,
	}
	r.RecordIdentity.RecordID, r.RecordIdentity.CreateTime = u.RecordID, at(u.Created)
	r.JobIdentity.GlobalJobID, r.JobIdentity.LocalJobID, r.JobIdentity.ProcessID = u.GlobalJobID, u.LocalJobID, u.ProcessIDs
	r.UserIdentity.LocalUserID, r.UserIdentity.GlobalUserName = u.LocalUser, u.GlobalUser
	for kind, d := range map[string]time.Duration{"user": u.UserCPU, "system": u.SystemCPU} {
		if d > 0 {
			if r.CPUDuration == nil {
				r.CPUDuration = map[string]string{}
			}
			r.CPUDuration[kind] = span(d)
		}
	}
	return json.MarshalIndent(r, "", "  ")
}
