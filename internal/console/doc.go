// Package console is the gateway's JSON API below /api/v1, which the command line
// uses for what no open standard has a word for. It turns requests into calls of
// the broker and its answers into JSON; it decides nothing.
//
// Field names only come, they never go or change their meaning.
package console
