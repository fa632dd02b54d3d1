// Portolan is one program: the gateway ("serve") and the verbs that speak to any
// OGSA-BES endpoint. Each verb has its own file and does no more than read flags
// and print; serve.go alone wires the parts of the gateway together.
package main
