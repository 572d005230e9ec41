// Reads YAML files as an editor does that has the YAML language server: `node as_an_editor.js SCHEMA FILE...`, NODE_PATH naming its packages.
// Prints one line of JSON for each file: `[{line, message}]` of its mistakes.
'use strict';
const fs = require('fs');
const { getLanguageService, TextDocument } = require('yaml-language-server');

async function main([schemaFile, ...files]) {
  const text = fs.readFileSync(schemaFile, 'utf8');
  const service = getLanguageService({
    schemaRequestService: async () => text,
    workspaceContext: { resolveRelativePath: (relative) => relative },
  });
  service.configure({
    validate: true,
    hover: false,
    completion: false,
    yamlVersion: '1.2',
    schemas: [{ uri: 'file:///vestibule.schema.json', fileMatch: ['*.yaml'] }],
  });
  for (const file of files) {
    const document = TextDocument.create('file://' + fs.realpathSync(file), 'yaml', 1, fs.readFileSync(file, 'utf8'));
    const found = await service.doValidation(document, false);
    const errors = found.filter((item) => item.severity === undefined || item.severity === 1 || item.source?.startsWith('yaml-schema'));
    console.log(JSON.stringify(errors.map((item) => ({ line: item.range.start.line + 1, message: item.message }))));
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
