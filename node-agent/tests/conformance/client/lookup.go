// Resolves names with Go's own resolver and connects at once to every address. Arguments and output are those
// of lookup.c.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// Linux repeats the first SYN after a second (RFC 6298): what takes less was done by the first one.
const firstSyn = 900 * time.Millisecond

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: lookup 4|6|any NAME...")
		os.Exit(2)
	}
	network := "ip" + os.Args[1]
	if os.Args[1] == "any" {
		network = "ip"
	}
	resolver := net.Resolver{PreferGo: true}
	for _, name := range os.Args[2:] {
		addresses, err := resolver.LookupIP(context.Background(), network, name)
		var problem *net.DNSError
		var family *net.AddrError
		switch {
		case errors.As(err, &problem) && problem.IsNotFound, errors.As(err, &family):
			fmt.Println("- nothing")
		case err != nil:
			fmt.Println("- failed:", err)
		}
		for _, address := range addresses {
			fmt.Println(address, try(address))
		}
	}
}

func try(address net.IP) string {
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(address.String(), "80"), firstSyn)
	var problem net.Error
	switch {
	case err == nil:
		connection.Close()
		return "ok"
	case errors.Is(err, syscall.EPERM):
		return "denied"
	case errors.As(err, &problem) && problem.Timeout():
		return "timeout"
	}
	return err.Error()
}
