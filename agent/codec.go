package agent

import (
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// strictJSON is Connect's JSON codec with two differences: unknown fields are errors, since a misspelt "value" must not
// store an empty one; and answers have the field names of the .proto file, which are those of the command line's JSON.
type strictJSON struct{ name string }

func (c strictJSON) Name() string { return c.name }

func (strictJSON) Marshal(message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T: not a message", message)
	}
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
}

func (strictJSON) Unmarshal(b []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("decode %T: not a message", message)
	}
	if len(b) == 0 {
		return fmt.Errorf("the body is empty; send at least {}")
	}
	return protojson.Unmarshal(b, m)
}

// refuseUnknown refuses requests with fields that this agent does not know. They come from a newer caller, and to ignore
// what it asks for (a precondition, say) would be worse than to refuse.
func refuseUnknown(message any) error {
	m, ok := message.(proto.Message)
	if ok && hasUnknown(m.ProtoReflect()) {
		return &Error{Code: CodeBadRequest, Message: "the request has a field that this agent does not know",
			Hint: "the agent is older than its caller: update it"}
	}
	return nil
}

func hasUnknown(m protoreflect.Message) (unknown bool) {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				unknown = unknown || hasUnknown(v.List().Get(i).Message())
			}
		default:
			unknown = hasUnknown(v.Message())
		}
		return !unknown
	})
	return unknown
}

var _ connect.Codec = strictJSON{}
