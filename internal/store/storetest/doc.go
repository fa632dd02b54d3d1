// Package storetest decides what a store is: Run is the suite that every
// store.Store passes, and Alike drives two stores with the same random
// operations and compares what they say.
package storetest
