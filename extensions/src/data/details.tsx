import { CommandRegistry } from '@lumino/commands';
import {
  addBelowIcon,
  refreshIcon,
  spreadsheetIcon
} from '@jupyterlab/ui-components';
import React, { useEffect, useState } from 'react';

import { asProblem, Problem } from '../api';
import {
  asOf,
  bytes,
  IconButton,
  Said,
  TextButton,
  Trouble
} from '../parts';
import { Dataset, ISample, ISchema, IStage } from '../resources';
import { DataModel } from './model';
import { Rows } from './rows';

const FIRST_ROWS = 5;

interface IStored {
  schema: ISchema;
  sample: ISample;
}

export function Details(props: {
  dataset: Dataset;
  model: DataModel;
  commands: CommandRegistry;
}): JSX.Element {
  const { dataset, model, commands } = props;
  const { status } = dataset;
  const run = (command: string) =>
    void commands.execute(command, { id: dataset.id });
  const importing = status.phase === 'IMPORTING';
  return (
    <div className="tp-details">
      {dataset.spec.description && <p>{dataset.spec.description}</p>}
      {status.as_of && (
        <p className="tp-dim">
          {[
            status.bytes !== null && bytes(status.bytes),
            status.files !== null &&
              `${status.files.toLocaleString()} ${status.files === 1 ? 'file' : 'files'}`,
            dataset.spec.format,
            `as of ${asOf(status.as_of)}`
          ]
            .filter(Boolean)
            .join(' · ')}
        </p>
      )}
      <Said
        message={status.message}
        nextStep={status.next_step}
        bad={status.phase === 'FAILED'}
      />
      {importing && <Stages stages={status.import?.stages ?? []} />}
      <div className="tp-buttons">
        {status.code && (
          <TextButton
            icon={addBelowIcon}
            label="Insert"
            title="Put the code that reads it into the notebook"
            onClick={event => event.detail < 2 && run('torpor:insert-dataset')}
          />
        )}
        {status.as_of && (
          <TextButton
            icon={spreadsheetIcon}
            label="Preview"
            title="Show all sample rows in a tab"
            onClick={() => run('torpor:preview-dataset')}
          />
        )}
        <ImportAgain
          small={Boolean(status.as_of)}
          disabled={importing}
          onClick={() => run('torpor:import-dataset')}
        />
      </div>
      {status.as_of && <Stored dataset={dataset} model={model} />}
    </div>
  );
}

function ImportAgain(props: {
  small: boolean;
  disabled: boolean;
  onClick: () => void;
}): JSX.Element {
  const Button = props.small ? IconButton : TextButton;
  return <Button icon={refreshIcon} label="Import again" {...props} />;
}

function Stages(props: { stages: IStage[] }): JSX.Element {
  return (
    <ol className="tp-stages">
      {props.stages.map(stage => (
        <li key={stage.name} className={`tp-stage-${stage.state.toLowerCase()}`}>
          <span>{stage.name}</span>
          <span className="tp-dim">{stage.message || stage.state}</span>
        </li>
      ))}
    </ol>
  );
}

/** Schema and first rows, as they were stored by the last import. */
function Stored(props: { dataset: Dataset; model: DataModel }): JSX.Element {
  const { dataset, model } = props;
  const [stored, setStored] = useState<IStored | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    let wanted = true;
    const load = Promise.all([
      model.schema(dataset.id),
      model.sample(dataset.id, FIRST_ROWS)
    ]);
    load.then(
      ([schema, sample]) => {
        if (wanted) {
          setStored({ schema, sample });
          setProblem(null);
        }
      },
      error => wanted && setProblem(asProblem(error))
    );
    return () => {
      wanted = false;
    };
  }, [model, dataset.id, dataset.status.as_of]);
  if (problem) {
    return <Trouble problem={problem} />;
  }
  if (!stored) {
    return <p className="tp-dim">…</p>;
  }
  return (
    <>
      <Columns schema={stored.schema} />
      <h3 className="tp-heading">First rows</h3>
      <Rows sample={stored.sample} label="First rows" />
    </>
  );
}

function Columns(props: { schema: ISchema }): JSX.Element {
  const { columns, partition_keys, partitions } = props.schema;
  return (
    <>
      <h3 className="tp-heading">
        Columns <span className="tp-count">{columns.length}</span>
      </h3>
      <table className="tp-columns" aria-label="Columns">
        <tbody>
          {columns.map(column => (
            <tr key={column.name}>
              <th scope="row" title={column.name}>
                {column.name}
              </th>
              <td title={`${column.type}${column.nullable ? ', may be empty' : ''}`}>
                {column.type}
                {partition_keys.includes(column.name) && (
                  <span className="tp-tag">partition</span>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {partitions && partitions.count > 0 && (
        <p className="tp-dim">
          {partitions.count.toLocaleString()} partitions, newest{' '}
          {partitions.newest[0]}
        </p>
      )}
    </>
  );
}
