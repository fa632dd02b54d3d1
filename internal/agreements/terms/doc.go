// Package terms lies between the documents of WS-Agreement and what can be planned:
// it makes templates and calendar pools of what the resource model knows of our own
// sites, reads what an offer asks for, and gives the plans that the calendar is to
// try for it.
//
//	vocabulary.go  our own service description terms (agreement/terms.xsd)
//	request.go     Read: an offer's definite terms as a Request
//	capacity.go    Pools: what of a share can be promised
//	templates.go   Templates: the offers that we take, with today's limits
//	load.go        templates that administrators write
//	plans.go       Plans: where and when a Request could be kept
//	summary.go     Summary: an agreement in plain sentences
//
// Everything is pure: the time is an argument, and nothing is remembered.
package terms
