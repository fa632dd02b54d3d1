// Package calendar says what of a site is held, and when: each Pool is the capacity of one
// share of a site, each Hold an amount of it from one instant until another, and a Profile
// the step function that their sum makes. It answers whether a hold fits, when the earliest
// does, and what is free.
//
// All is exact: amounts are whole numbers, times whole seconds. A hold is rounded outward, so
// that what it covers is never less than what was asked for. Nothing here reads a clock or
// starts a goroutine.
package calendar
