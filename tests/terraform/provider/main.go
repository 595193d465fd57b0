// A provider that has the true provider's schema and none of its behaviour.
//
// It reads `schema.json` beside its own binary, in the form of `terraform providers schema -json`, and answers what
// `validate` and `test` with `mock_provider` ask: the schema, and that a configuration of that shape is acceptable.
// Whatever would touch a cloud is an error.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"

	tfjson "github.com/hashicorp/terraform-json"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

type provider struct {
	tfprotov6.ProviderServer // what is not answered below is never asked by `validate` and mocked tests
	schema                   *tfjson.ProviderSchema
}

func main() {
	address, schema, err := load()
	if err == nil {
		err = tf6server.Serve(address, func() tfprotov6.ProviderServer { return &provider{schema: schema} })
	}
	if err != nil {
		log.Fatal(err)
	}
}

func load() (string, *tfjson.ProviderSchema, error) {
	binary, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(binary), "schema.json"))
	if err != nil {
		return "", nil, err
	}
	var all struct {
		Schemas map[string]*tfjson.ProviderSchema `json:"provider_schemas"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return "", nil, err
	}
	for address, schema := range all.Schemas {
		return address, schema, nil
	}
	return "", nil, fmt.Errorf("schema.json names no provider")
}

func (p *provider) GetMetadata(context.Context, *tfprotov6.GetMetadataRequest) (*tfprotov6.GetMetadataResponse, error) {
	return &tfprotov6.GetMetadataResponse{}, nil
}

func (p *provider) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	return &tfprotov6.GetProviderSchemaResponse{
		Provider:                 schema(p.schema.ConfigSchema),
		ResourceSchemas:          schemas(p.schema.ResourceSchemas),
		DataSourceSchemas:        schemas(p.schema.DataSourceSchemas),
		EphemeralResourceSchemas: schemas(p.schema.EphemeralResourceSchemas),
		Functions:                map[string]*tfprotov6.Function{},
	}, nil
}

func schemas(from map[string]*tfjson.Schema) map[string]*tfprotov6.Schema {
	to := map[string]*tfprotov6.Schema{}
	for name, value := range from {
		to[name] = schema(value)
	}
	return to
}

func schema(from *tfjson.Schema) *tfprotov6.Schema {
	return &tfprotov6.Schema{Block: block(from.Block)}
}

func block(from *tfjson.SchemaBlock) *tfprotov6.SchemaBlock {
	to := &tfprotov6.SchemaBlock{Attributes: attributes(from.Attributes)}
	for name, nested := range from.NestedBlocks {
		to.BlockTypes = append(to.BlockTypes, &tfprotov6.SchemaNestedBlock{
			TypeName: name,
			Block:    block(nested.Block),
			Nesting:  blockModes[nested.NestingMode],
			MinItems: int64(nested.MinItems),
			MaxItems: int64(nested.MaxItems),
		})
	}
	return to
}

var blockModes = map[tfjson.SchemaNestingMode]tfprotov6.SchemaNestedBlockNestingMode{
	tfjson.SchemaNestingModeSingle: tfprotov6.SchemaNestedBlockNestingModeSingle,
	tfjson.SchemaNestingModeList:   tfprotov6.SchemaNestedBlockNestingModeList,
	tfjson.SchemaNestingModeSet:    tfprotov6.SchemaNestedBlockNestingModeSet,
	tfjson.SchemaNestingModeMap:    tfprotov6.SchemaNestedBlockNestingModeMap,
}

var objectModes = map[tfjson.SchemaNestingMode]tfprotov6.SchemaObjectNestingMode{
	tfjson.SchemaNestingModeSingle: tfprotov6.SchemaObjectNestingModeSingle,
	tfjson.SchemaNestingModeList:   tfprotov6.SchemaObjectNestingModeList,
	tfjson.SchemaNestingModeSet:    tfprotov6.SchemaObjectNestingModeSet,
	tfjson.SchemaNestingModeMap:    tfprotov6.SchemaObjectNestingModeMap,
}

func attributes(from map[string]*tfjson.SchemaAttribute) []*tfprotov6.SchemaAttribute {
	var to []*tfprotov6.SchemaAttribute
	for name, value := range from {
		attribute := &tfprotov6.SchemaAttribute{
			Name:      name,
			Required:  value.Required,
			Optional:  value.Optional,
			Computed:  value.Computed,
			WriteOnly: value.WriteOnly,
		}
		if nested := value.AttributeNestedType; nested != nil {
			attribute.NestedType = &tfprotov6.SchemaObject{
				Attributes: attributes(nested.Attributes),
				Nesting:    objectModes[nested.NestingMode],
			}
		} else {
			attribute.Type = typeOf(value)
		}
		to = append(to, attribute)
	}
	return to
}

func typeOf(value *tfjson.SchemaAttribute) tftypes.Type {
	text, err := value.AttributeType.MarshalJSON()
	if err == nil {
		var found tftypes.Type
		if found, err = tftypes.ParseJSONType(text); err == nil { // deprecated, but the only reader of this form
			return found
		}
	}
	log.Fatal(err)
	return nil
}

func (p *provider) ValidateProviderConfig(_ context.Context, asked *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: asked.Config}, nil
}

func (p *provider) ValidateResourceConfig(context.Context, *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{}, nil
}

func (p *provider) ValidateDataResourceConfig(context.Context, *tfprotov6.ValidateDataResourceConfigRequest) (*tfprotov6.ValidateDataResourceConfigResponse, error) {
	return &tfprotov6.ValidateDataResourceConfigResponse{}, nil
}

func (p *provider) ValidateEphemeralResourceConfig(context.Context, *tfprotov6.ValidateEphemeralResourceConfigRequest) (*tfprotov6.ValidateEphemeralResourceConfigResponse, error) {
	return &tfprotov6.ValidateEphemeralResourceConfigResponse{}, nil
}

func (p *provider) UpgradeResourceState(_ context.Context, asked *tfprotov6.UpgradeResourceStateRequest) (*tfprotov6.UpgradeResourceStateResponse, error) {
	return &tfprotov6.UpgradeResourceStateResponse{UpgradedState: &tfprotov6.DynamicValue{JSON: asked.RawState.JSON}}, nil
}

func (p *provider) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}
