//go:build tools

// Package tools pins the KWOK that partita-cluster builds, and with it the stages that it plays.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
