// Holds what is published of the chat protocol to the standards, and frames to what is published.
// stdin: {asyncapi, schema, frames: [[definition, value, isValid]]}; prints what is wrong, as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import Ajv from "ajv";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const { asyncapi, schema, frames } = JSON.parse(readFileSync(0, "utf8"));
const wrong = [];

const standard = createRequire(import.meta.url)("@asyncapi/specs/schemas/3.0.0-without-$id.json");
const ajv = new Ajv({ strict: false, allErrors: true });
addFormats(ajv);
const isAsyncAPI = ajv.compile(standard);
if (!isAsyncAPI(asyncapi)) wrong.push(...isAsyncAPI.errors);

const bodies = new Ajv2020({ strict: true, allowUnionTypes: true });
bodies.addSchema(schema, "bodies");
const travelling = new Ajv({ strict: false });
travelling.addSchema(asyncapi, "asyncapi");
for (const [where, definition, value, isValid] of frames) {
  const found = (where === "bodies" ? bodies : travelling).getSchema(`${where}#/${definition}`);
  if (!found) wrong.push(`there is no ${definition}`);
  else if (found(value) !== isValid) wrong.push([definition, value, found.errors]);
}
console.log(JSON.stringify(wrong));
