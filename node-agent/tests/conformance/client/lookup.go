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
	"unsafe"
)

const patience = 3 * time.Second

// No SYN is sent again before that: after half a second if it did not leave, else after a second (RFC 6298).
const soonestSecondSyn = 450 * time.Millisecond

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
	began := time.Now()
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(address.String(), "80"), patience)
	var problem net.Error
	switch {
	case err == nil:
		defer connection.Close()
		if sentAgain(connection.(*net.TCPConn)) && time.Since(began) >= soonestSecondSyn {
			return "late"
		}
		return "ok"
	case errors.Is(err, syscall.EPERM):
		return "denied"
	case errors.As(err, &problem) && problem.Timeout():
		return "timeout"
	}
	return err.Error()
}

// sentAgain says whether a SYN was sent again (tcpi_total_retrans). A machine that stands still for a while has lost nothing.
func sentAgain(connection *net.TCPConn) bool {
	var info [104]byte
	raw, err := connection.SyscallConn()
	if err != nil {
		panic(err)
	}
	raw.Control(func(fd uintptr) {
		length := uint32(len(info))
		syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	})
	return *(*uint32)(unsafe.Pointer(&info[100])) > 0
}
