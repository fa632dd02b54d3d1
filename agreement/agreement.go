package agreement

import (
	"context"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Namespaces. NSPortolan holds what the standard leaves to implementations:
// expressions, sub-states, the history of guarantees, dialects of error codes.
const (
	NS            = "http://schemas.ggf.org/graap/2007/03/ws-agreement"
	NSNegotiation = "http://schemas.ogf.org/graap/2009/11/ws-agreement-negotiation"
	NSPortolan    = "http://portolan-project.org/ns/2026/agreement"
)

// Agreement is what offers, templates and agreements have in common
// (wsag:AgreementType, §4.1).
type Agreement struct {
	ID      string // @wsag:AgreementId; "" is none
	Name    string // "" is none
	Context Context
	// Terms is the one wsag:All of wsag:Terms; nil when wsag:Terms is empty.
	Terms *Compositor
}

// Offer is a wsag:AgreementOffer.
type Offer struct {
	Agreement
	// Element is the offer as it was read, which constraints are checked on; nil in
	// one that was made here (Encode gives one).
	Element *etree.Element
}

// Template is a wsag:Template: an agreement with what an offer may change in it.
type Template struct {
	Agreement
	TemplateID  string // @wsag:TemplateId; with Agreement.Name what offers refer to
	Constraints Constraints
	Element     *etree.Element // as it was read; nil in one that was made here
}

// Constraints are a template's wsag:CreationConstraints.
type Constraints struct {
	Items []Item
	// Free are the wsag:Constraint elements, across items, in any language.
	Free []*etree.Element
}

// Item is a wsag:Item: what is found at Location must satisfy the constraint.
type Item struct {
	Name     string // @wsag:Name; "" is none
	Location string // an XPath, as it was written
	// Scope resolves the prefixes of Location: those that the wsag:Location had in scope.
	Scope map[string]string
	// Constraint is the wsag:ItemConstraint with its facets or particle (xs:); nil or
	// one without children lets anything.
	Constraint *etree.Element
	Extensions []*etree.Element
}

// Party is a role of the protocol: who offered and who was offered to.
type Party string

// The parties (§4.1.1).
const (
	Initiator Party = "AgreementInitiator"
	Responder Party = "AgreementResponder"
)

// Context is a wsag:Context: who agrees, for how long, by which template.
type Context struct {
	AgreementInitiator *etree.Element // any content; nil is none. It proves nothing: who it is comes from the message.
	AgreementResponder *etree.Element
	ServiceProvider    Party
	ExpirationTime     time.Time // zero is none
	TemplateID         string
	TemplateName       string
	Extensions         []*etree.Element
	Attributes         []Attribute // of other namespaces
}

// Attribute is one that is not of WS-Agreement.
type Attribute struct {
	Name  xmldoc.Name
	Value string
}

// Composition is how the terms of a compositor belong together.
type Composition string

// The compositions (§4.2.1).
const (
	All        Composition = "All"
	OneOrMore  Composition = "OneOrMore"
	ExactlyOne Composition = "ExactlyOne"
)

// Term is a *Compositor, *ServiceDescription, *ServiceReference,
// *ServiceProperties or *Guarantee.
type Term interface {
	// TermName is the wsag:Name; "" for a compositor.
	TermName() string
}

// Compositor is a wsag:All, wsag:OneOrMore or wsag:ExactlyOne.
type Compositor struct {
	Kind  Composition
	Terms []Term // in document order
}

// TermName implements Term.
func (*Compositor) TermName() string { return "" }

// ServiceDescription is a wsag:ServiceDescriptionTerm (§4.2.3).
type ServiceDescription struct {
	Name, ServiceName string
	Description       *etree.Element // its one foreign element: a jsdl:JobDefinition, a time constraint…
}

// TermName implements Term.
func (t *ServiceDescription) TermName() string { return t.Name }

// ServiceReference is a wsag:ServiceReference (§4.2.4).
type ServiceReference struct {
	Name, ServiceName string
	Reference         *etree.Element
}

// TermName implements Term.
func (t *ServiceReference) TermName() string { return t.Name }

// ServiceProperties is a wsag:ServiceProperties (§4.2.5): variables that guarantees use.
type ServiceProperties struct {
	Name, ServiceName string
	Variables         []Variable
}

// TermName implements Term.
func (t *ServiceProperties) TermName() string { return t.Name }

// Variable is a wsag:Variable: a value of the agreement, with a name.
type Variable struct {
	Name   string // "" is none
	Metric string // the unit or type, a URI or QName; "" is none
	// MetricSpace is what the prefix of Metric was bound to; "" where it has none.
	MetricSpace string
	Location    string // an XPath into the agreement
	Scope       map[string]string
}

// Obligation is who must keep a guarantee.
type Obligation string

// The obligations; "" where the document does not say.
const (
	ServiceConsumer Obligation = "ServiceConsumer"
	ServiceProvider Obligation = "ServiceProvider"
)

// Guarantee is a wsag:GuaranteeTerm (§4.2.6).
type Guarantee struct {
	Name      string
	Obligated Obligation
	Scopes    []Scope
	// QualifyingCondition says when the guarantee holds at all; nil is always. The
	// wsag:QualifyingCondition itself, with any content.
	QualifyingCondition *etree.Element
	// KPIName and Level are a wsag:KPITarget; KPIName is "" where the objective is a
	// wsag:CustomServiceLevel, which Level then is.
	KPIName string
	Level   *etree.Element // the wsag:CustomServiceLevel, with any content
	Values  BusinessValues
}

// TermName implements Term.
func (t *Guarantee) TermName() string { return t.Name }

// Scope is a wsag:ServiceScope: the service, or a part of it, that is guaranteed.
type Scope struct {
	ServiceName string
	Extensions  []*etree.Element
}

// BusinessValues is a wsag:BusinessValueList.
type BusinessValues struct {
	Importance  *int64 // relative; nil is none
	Penalties   []Compensation
	Rewards     []Compensation
	Preferences []Preference
	Custom      []*etree.Element // wsag:CustomBusinessValue
}

// Compensation is a wsag:Penalty or wsag:Reward, due for each assessment.
type Compensation struct {
	// Interval or Count is the wsag:AssessmentInterval; the other is "" or 0.
	Interval string // an xs:duration, as written
	Count    int64  // of assessments
	Unit     string // wsag:ValueUnit; "" is none
	// Expression is the wsag:ValueExpression, with any content.
	Expression *etree.Element
}

// Preference is one pair of a wsag:Preference: how useful an alternative is.
type Preference struct {
	Term    string // wsag:ServiceTermReference
	Utility float64
}

// State is the state of an agreement.
type State string

// The states of an agreement (§7.1).
const (
	Pending                State = "Pending"
	PendingAndTerminating  State = "PendingAndTerminating"
	Observed               State = "Observed"
	ObservedAndTerminating State = "ObservedAndTerminating"
	Rejected               State = "Rejected"
	Complete               State = "Complete"
	Terminated             State = "Terminated"
)

// ServiceState is the state of a service term.
type ServiceState string

// The states of a service term (§7.2).
const (
	NotReady  ServiceState = "NotReady"
	Ready     ServiceState = "Ready"
	Completed ServiceState = "Completed"
)

// Activity says what a Ready service does.
type Activity string

// The sub-states of Ready; "" is not told.
const (
	Processing Activity = "Processing"
	Idle       Activity = "Idle"
)

// GuaranteeState is the state of a guarantee term: that of its latest assessment.
type GuaranteeState string

// The states of a guarantee (§7.3).
const (
	NotDetermined GuaranteeState = "NotDetermined"
	Fulfilled     GuaranteeState = "Fulfilled"
	Violated      GuaranteeState = "Violated"
)

// Properties are the resource properties of an agreement (wsag:AgreementProperties).
type Properties struct {
	Agreement
	State      State
	SubState   *etree.Element // foreign; before State on the wire. nil is none.
	Guarantees []GuaranteeTermState
	Services   []ServiceTermState
}

// GuaranteeTermState is the state of one guarantee.
type GuaranteeTermState struct {
	Term   string
	State  GuaranteeState
	Detail *etree.Element // foreign; nil is none
}

// ServiceTermState is the state of one service term.
type ServiceTermState struct {
	Term     string
	State    ServiceState
	Activity Activity
	Detail   *etree.Element // foreign: the child of the sub-state, or its stand-in; nil is none
}

// CreateRequest asks for an agreement.
type CreateRequest struct {
	Offer Offer
	// InitiatorEPR is the initiator's own agreement resource; nil is none.
	InitiatorEPR *soap.EPR
	// AcceptanceEPR is where a pending agreement's decision is to be told; nil is none.
	AcceptanceEPR *soap.EPR
	// Noncritical are the children of the wsag:NoncriticalExtension elements.
	Noncritical []*etree.Element
	// Critical are the elements beside those, which must be understood. A server passes on
	// those that the Service, as an Extender, says to understand, and refuses a request with
	// another.
	Critical []*etree.Element
	// Received is the wsag:AgreementOffer as it came, for the record; nil in a client.
	Received []byte
}

// Service is what an agreement provider does. Who asks is in the context
// (soap.PrincipalFrom). Errors are fail errors whose kind faults.go maps to a
// wsag:ContinuingFault or a fault of WSRF. An agreement is named by the key that
// its EPR carries.
type Service interface {
	// Templates gives those that the caller may offer by.
	Templates(context.Context) ([]Template, error)
	// Create accepts the offer and gives the key of an agreement that is Observed
	// already, or rejects it with an error.
	Create(context.Context, *CreateRequest) (key string, err error)
	// CreatePending gives the key of an agreement that is Pending; the decision is
	// told to AcceptanceEPR, and seen in the agreement's state.
	CreatePending(context.Context, *CreateRequest) (key string, err error)
	// Agreement gives the properties of one.
	Agreement(ctx context.Context, key string) (*Properties, error)
	// Terminate asks for the end of one; reason is the input's child, nil is none.
	Terminate(ctx context.Context, key string, reason *etree.Element) error
}

// Lister is a Service that can give what a caller has (an extension of ours).
type Lister interface {
	// List gives the keys of the caller's agreements, the newest first, below the
	// key before ("" from the newest), at most limit.
	List(ctx context.Context, before string, limit int) ([]string, error)
}

// Extender is a Service that acts on extensions of the requests of Create, CreatePending and
// Prepare which stand where they must be understood. One that is none understands no such
// extension.
type Extender interface {
	// Understands reports whether the service acts on an element of that name.
	Understands(extension xmldoc.Name) bool
}

// Acceptor is who is told how a pending agreement was decided (the
// AgreementAcceptance port type). The key is the initiator's own.
type Acceptor interface {
	Accept(ctx context.Context, key string) error
	Reject(ctx context.Context, key string, why []*etree.Element) error
}
